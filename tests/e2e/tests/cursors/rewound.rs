//! A database that went back in time gives positions again: tokens from before are not taken for those of now.

use postgres::Client;
use postgres::error::DbError;
use tailstream_e2e::cursor::{ack, fetched, labels, page, store};
use tailstream_e2e::database::one;
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::{Standby, eventually, refused};

use crate::crash::{connect, server};
use crate::{LONG, create, database, store_placed};

const LIVE: &str = "SELECT cursor FROM ts_replay_live('acme', now() - interval '1 hour')";

/// Every way to go on behind a token fails, and says why.
#[track_caller]
fn unknown(client: &mut Client, what: &str, token: &str, calls: &[&str]) {
    refusing(client, what, token, calls, ("22023", "refers to a position that the database does not have"));
}

#[track_caller]
fn refusing(
    client: &mut Client,
    what: &str,
    token: &str,
    calls: &[&str],
    (sqlstate, message): (&'static str, &str),
) {
    for call in calls {
        let call = call.replace('$', token);
        let error: DbError =
            refused(what, client.execute(&format!("SELECT * FROM {call}"), &[]), &[sqlstate]);
        assert!(error.message().contains(message), "{what}: {error:?}");
    }
}

const OF_ARRIVAL: [&str; 4] = [
    "ts_cursor_ack('reader', '$')",
    "ts_cursor_seek('reader', '$')",
    "ts_cursor_create('another', 'acme', start => '$')",
    "ts_replay_page('acme', NULL, NULL, after => '$')",
];
const OF_NEWCOMER: [&str; 2] = [
    "ts_cursor_create('another', 'newcomer', start => '$')",
    "ts_replay_page('newcomer', NULL, NULL, after => '$')",
];
const OF_LIVE: [&str; 3] = [
    "ts_cursor_seek('reader', '$')",
    "ts_replay_page('acme', NULL, NULL, after => '$')",
    "ts_replay_schedule('acme', NULL, NULL, after => '$')",
];

#[test]
fn tokens_of_commits_that_a_failover_lost_are_refused_and_nothing_is_skipped() {
    let cluster = server("cursors-rewound");
    let mut client = connect(&cluster);
    store_placed(&mut client, "acme", &[("a", 50)]);
    create(&mut client, "'reader', 'acme'");
    let kept_live: String = one(&mut client, LIVE);
    let mut standby = Standby::copy(&cluster);

    store_placed(&mut client, "acme", &[("b", 40), ("c", 30)]);
    let rows = fetched(&mut client, "'reader', 10");
    assert_eq!(labels(&rows), ["a", "b", "c"]);
    let [kept, lost @ ..] = rows.as_slice() else { panic!("no rows") };
    store_placed(&mut client, "newcomer", &[("n", 20), ("m", 10)]);
    create(&mut client, "'newcomer', 'newcomer'");
    let newcomer = fetched(&mut client, "'newcomer', 10");
    assert_eq!(labels(&newcomer), ["n", "m"]);
    let lost_live: String = one(&mut client, LIVE);
    // It cannot reach the primary any more, and has what was copied.
    cluster.kill9().expect("kill -9");
    standby.start();
    let mut client = standby.connect("app");
    standby.promote(&mut client);

    let refuse = |client: &mut Client, when: &str| {
        for row in lost {
            unknown(client, &format!("{} {when}", row.label()), &row.cursor, &OF_ARRIVAL);
        }
        for row in &newcomer {
            unknown(client, &format!("{} {when}", row.label()), &row.cursor, &OF_NEWCOMER);
        }
        unknown(client, when, &lost_live, &OF_LIVE);
    };
    refuse(&mut client, "before its position is given again");
    let batch = store(&mut client, "acme", &[("d", 20), ("e", 10)]);
    soon_placed(&mut client, batch);
    store_placed(&mut client, "newcomer", &[("o", 5), ("p", 0)]);
    refuse(&mut client, "when its position is another's");

    let history = page(&mut client, &format!("'acme', NULL, NULL, after => '{kept_live}'"));
    assert_eq!(labels(&history), ["a"], "what was known before the failover has the boundary it had");
    let next = page(&mut client, &format!("'acme', NULL, NULL, after => '{}'", kept.cursor));
    assert_eq!(labels(&next), ["d", "e"]);
    assert!(ack(&mut client, "reader", &kept.cursor).expect("an acknowledgement"));
    assert_eq!(labels(&fetched(&mut client, "'reader', 10")), ["d", "e"]);
}

#[test]
fn a_standby_that_lags_refuses_a_token_until_it_has_caught_up() {
    let cluster = server("cursors-lagging");
    let mut client = connect(&cluster);
    store_placed(&mut client, "acme", &[("a", 50)]);
    create(&mut client, "'reader', 'acme'");
    let mut standby = Standby::copy(&cluster);
    standby.start();
    let mut replica = standby.connect("app");
    replica.execute("SELECT pg_wal_replay_pause()", &[]).expect("a pause");
    let state = "SELECT pg_get_wal_replay_pause_state()";
    eventually("the replay to pause", LONG, || {
        (one::<String>(&mut replica, state) == "paused").then_some(())
    });

    store_placed(&mut client, "acme", &[("b", 40), ("c", 30)]);
    let rows = fetched(&mut client, "'reader', 2");
    let after = format!("'acme', NULL, NULL, after => '{}'", rows[1].cursor);
    let live: String = one(&mut client, LIVE);
    let up_to_now = format!("'acme', NULL, NULL, after => '{live}'");
    let page_after = ["ts_replay_page('acme', NULL, NULL, after => '$')"];
    let behind = ("55000", "refers to a position that the standby has not replayed");
    refusing(&mut replica, "a place", &rows[1].cursor, &page_after, behind);
    refusing(&mut replica, "a boundary", &live, &page_after, behind);

    replica.execute("SELECT pg_wal_replay_resume()", &[]).expect("the end of the pause");
    let count = "SELECT count(*) FROM tailstream.positions";
    eventually("the standby to catch up", LONG, || (one::<i64>(&mut replica, count) == 2).then_some(()));
    assert_eq!(labels(&page(&mut replica, &after)), ["c"]);
    assert_eq!(labels(&page(&mut replica, &up_to_now)), ["a", "b", "c"]);
}

#[test]
fn a_token_that_is_newer_than_the_transactions_snapshot_is_accepted() {
    let database = database("newer");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 50)]);
    create(&mut client, "'reader', 'acme'");
    let mut old = database.connect();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").expect("a snapshot");
    store_placed(&mut client, "acme", &[("b", 40), ("c", 30)]);
    let rows = fetched(&mut client, "'reader', 2");
    let live: String = one(&mut client, LIVE);
    // In order of arrival it reads what its snapshot shows, but all up to a boundary.
    let by_arrival: String =
        one(&mut client, "SELECT cursor FROM ts_replay_live('acme', resume_after => '0-1')");
    let all = ["a", "b", "c"].as_slice();
    for (token, expected) in [(&rows[1].cursor, [].as_slice()), (&live, all), (&by_arrival, all)] {
        let rows = page(&mut old, &format!("'acme', NULL, NULL, after => '{token}'"));
        assert_eq!(labels(&rows), expected);
    }
}

#[test]
fn a_token_stays_good_when_the_batch_before_its_place_is_gone() {
    let database = database("left_alone");
    let mut client = database.connect();
    create(&mut client, "'reader', 'acme'");
    for org in ["other", "acme"] {
        store_placed(&mut client, org, &[("a", 50), ("b", 40)]);
    }
    let rows = fetched(&mut client, "'reader', 1");
    client.execute("SELECT ts_erase_org('other')", &[]).expect("an erasure");
    let next = page(&mut client, &format!("'acme', NULL, NULL, after => '{}'", rows[0].cursor));
    assert_eq!(labels(&next), ["b"]);
    assert!(ack(&mut client, "reader", &rows[0].cursor).expect("an acknowledgement"));
    assert_eq!(labels(&fetched(&mut client, "'reader', 10")), ["b"]);
}

#[test]
fn the_token_of_a_gap_stays_good_when_the_batch_behind_it_was_erased_with_its_org() {
    let database = database("behind_gap");
    let mut client = database.connect();
    store_placed(&mut client, "other", &[("x", 50)]);
    // Placed in one look, and not as its last batch: such a position goes without a trace.
    client.batch_execute("BEGIN").expect("begin");
    store(&mut client, "acme", &[("a", 40), ("b", 30)]);
    let last = store(&mut client, "other", &[("y", 20)]);
    client.batch_execute("COMMIT").expect("commit");
    soon_placed(&mut client, last);
    let before: String = one(&mut client, "SELECT cursor FROM ts_replay_live('acme', resume_after => '0-1')");
    let after = |token: &str| format!("'acme', NULL, NULL, after => '{token}'");
    assert_eq!(labels(&page(&mut client, &after(&before))), ["a", "b"]);
    client.execute("SELECT ts_erase_org('acme')", &[]).expect("an erasure");
    let rows = page(&mut client, &after(&before));
    assert_eq!(labels(&rows), ["gap erased"]);
    assert_eq!(page(&mut client, &after(&rows[0].cursor)), []);
}
