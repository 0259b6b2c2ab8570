//! What a reader had not reached and can no longer get is a gap, and nothing else is.

use postgres::Client;
use tailstream_e2e::cursor::{Fetched, ack, fetched, labels, page};
use tailstream_e2e::database::{column, one};

use crate::{OLD, ORDERS, create, cursor_table, database, run, shorten, store_placed};

const GAP: &str = "gap retention";

/// When an org's events with this path happened, in microseconds.
fn times(client: &mut Client, org: &str, path: &str) -> Vec<i64> {
    let sql = format!(
        "SELECT (extract(epoch FROM created_at) * 1000000)::bigint FROM tailstream.events
         WHERE org_id = '{org}' AND path = '{path}'"
    );
    column(client, &sql)
}

/// Fails unless the gap's times hold those of what was lost, and not that of what was not.
#[track_caller]
fn check_times(gap: &Fetched, lost: &[i64], kept: &[i64]) {
    let times = gap.gap.as_ref().expect("a gap");
    let (from, to) = (times.from.expect("a beginning"), times.to.expect("an end"));
    assert!(lost.iter().all(|time| (from..=to).contains(time)), "{times:?} is not around {lost:?}");
    assert!(!kept.iter().any(|time| (from + 1..to).contains(time)), "{times:?} holds {kept:?}");
}

#[test]
fn a_purge_that_overtakes_a_cursor_is_a_gap_and_then_it_goes_on() {
    let database = database("overtaken");
    let mut client = database.connect();
    let mut lost = Vec::new();
    for order in ORDERS {
        store_placed(&mut client, order, &[("seen", OLD), ("lost", OLD - 60), ("lost", OLD - 120)]);
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}', 1, auto_ack => true"))), ["seen"]);
        lost.push(times(&mut client, order, "lost"));
    }
    shorten(&mut client);
    for (order, lost) in ORDERS.iter().zip(&lost) {
        store_placed(&mut client, order, &[("a", 30), ("b", 20), ("c", 10)]);
        let mut next = |more: &str| fetched(&mut client, &format!("'{order}', {more}"));
        let rows = next("2");
        assert_eq!(labels(&rows), [GAP, "a", "b"], "{order}: a gap does not count as one of two");
        assert_eq!(rows[0].org, *order);
        assert_eq!(labels(&next("2")), [GAP, "a", "b"], "{order}: until it is acknowledged");
        let without_json = format!("SELECT kind FROM ts_cursor_fetch('{order}') f WHERE ts_event(f) IS NULL");
        assert_eq!(column::<String>(&mut client, &without_json), ["gap"]);
        let kept = times(&mut client, order, "a");
        check_times(&rows[0], lost, &kept);
        assert!(ack(&mut client, order, &rows[0].cursor).expect("an ack of a gap"));
        assert!(!ack(&mut client, order, &rows[0].cursor).expect("an ack of a gap"));
        let mut next = |more: &str| fetched(&mut client, &format!("'{order}', {more}"));
        assert_eq!(labels(&next("2")), ["a", "b"], "{order}: then it is behind");
        assert_eq!(labels(&next("2, auto_ack => true")), ["a", "b"]);
        assert_eq!(labels(&next("2")), ["c"]);
    }
}

#[test]
fn where_nothing_was_lost_there_is_no_gap() {
    let database = database("quiet");
    let mut client = database.connect();
    for order in ORDERS {
        let (quiet, empty) = (format!("quiet {order}"), format!("empty {order}"));
        store_placed(&mut client, &quiet, &[("a", OLD), ("b", OLD - 60)]);
        store_placed(&mut client, "other", &[("x", OLD - 30), ("y", OLD - 90)]);
        for org in [&quiet, &empty] {
            create(&mut client, &format!("'c', '{org}', order_by => '{order}'"));
        }
        create(
            &mut client,
            &format!("'early', '{empty}', now() - interval '170 minutes', order_by => '{order}'"),
        );
        assert_eq!(fetched(&mut client, &format!("'c', org => '{quiet}', auto_ack => true")).len(), 2);
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM tailstream.cursors"), 6);
    shorten(&mut client);
    for order in ORDERS {
        let (quiet, empty) = (format!("quiet {order}"), format!("empty {order}"));
        let readers = [("c", &quiet), ("c", &empty), ("early", &empty)];
        for (name, org) in readers {
            assert_eq!(fetched(&mut client, &format!("'{name}', org => '{org}'")), [], "{name} of {org}");
        }
        for org in [&quiet, &empty] {
            store_placed(&mut client, org, &[("new", 10), ("newer", 5)]);
        }
        for (name, org) in readers {
            let rows = fetched(&mut client, &format!("'{name}', 2, org => '{org}', auto_ack => true"));
            assert_eq!(labels(&rows), ["new", "newer"], "{name} of {org}");
        }
    }
}

#[test]
fn a_cursor_whose_org_has_nothing_left_gets_the_gap_alone() {
    let database = database("all_lost");
    let mut client = database.connect();
    for order in ORDERS {
        for name in ["acked", "moved", "waiting"] {
            create(&mut client, &format!("'{order} {name}', '{order}', order_by => '{order}'"));
        }
        store_placed(&mut client, order, &[("a", OLD), ("b", OLD - 60)]);
    }
    shorten(&mut client);
    for order in ORDERS {
        let rows = fetched(&mut client, &format!("'{order} acked'"));
        assert_eq!(labels(&rows), [GAP], "{order}");
        assert!(ack(&mut client, &format!("{order} acked"), &rows[0].cursor).expect("an ack"));
        assert_eq!(labels(&fetched(&mut client, &format!("'{order} moved', auto_ack => true"))), [GAP]);
        // A gap is something to tell, so nothing is waited for.
        let waiting =
            fetched(&mut client, &format!("'{order} waiting', timeout => '1 hour', auto_ack => true"));
        assert_eq!(labels(&waiting), [GAP]);
        for name in ["acked", "moved", "waiting"] {
            assert_eq!(fetched(&mut client, &format!("'{order} {name}'")), [], "{order} {name}: it was told");
        }
        store_placed(&mut client, order, &[("new", 0)]);
        for name in ["acked", "moved", "waiting"] {
            let rows = fetched(&mut client, &format!("'{order} {name}', auto_ack => true"));
            assert_eq!(labels(&rows), ["new"], "{order} {name}");
        }
    }
}

#[test]
fn a_downgrade_is_a_gap_until_it_is_taken_back_or_acknowledged() {
    let database = database("downgraded");
    let mut client = database.connect();
    for order in ORDERS {
        run(&mut client, &format!("ts_set_org_tier('{order}', 'premium')"));
        store_placed(&mut client, order, &[("seen", 20_000), ("hidden", 18_000), ("shown", 60)]);
        for name in ["c", "told"] {
            create(&mut client, &format!("'{name}', '{order}', order_by => '{order}'"));
            let one = format!("'{name}', 1, org => '{order}', auto_ack => true");
            assert_eq!(labels(&fetched(&mut client, &one)), ["seen"]);
        }
        let (hidden, shown) = (times(&mut client, order, "hidden"), times(&mut client, order, "shown"));
        run(&mut client, &format!("ts_set_org_tier('{order}', 'standard')"));
        let rows = fetched(&mut client, &format!("'c', org => '{order}'"));
        assert_eq!(labels(&rows), [GAP, "shown"], "{order}: hidden at once, and said so");
        check_times(&rows[0], &hidden, &shown);
        let told = fetched(&mut client, &format!("'told', 1, org => '{order}', auto_ack => true"));
        assert_eq!(labels(&told), [GAP, "shown"]);
        run(&mut client, &format!("ts_set_org_tier('{order}', 'premium')"));
        let rows = fetched(&mut client, &format!("'c', org => '{order}'"));
        // By time nobody can tell whether the purge had been there, so there may be a gap before them.
        let rows = if order == ORDERS[1] && rows[0].gap.is_some() { &rows[1..] } else { &rows };
        assert_eq!(labels(rows), ["hidden", "shown"], "{order}: back for whom was not told");
        assert_eq!(
            fetched(&mut client, &format!("'told', org => '{order}'")),
            [],
            "{order}: never backwards"
        );
    }
}

#[test]
fn a_longer_retention_does_not_hide_what_was_purged_before() {
    let database = database("lengthened");
    let mut client = database.connect();
    for order in ORDERS {
        store_placed(&mut client, order, &[("seen", OLD), ("lost", OLD - 60)]);
        for name in ["c", "upgraded"] {
            create(&mut client, &format!("'{name}', '{order}', order_by => '{order}'"));
            let first = format!("'{name}', 1, org => '{order}', auto_ack => true");
            assert_eq!(labels(&fetched(&mut client, &first)), ["seen"]);
        }
    }
    shorten(&mut client);
    run(&mut client, "ts_alter_tier('standard', '3 hours')");
    for (order, name) in ORDERS.iter().flat_map(|order| [(order, "c"), (order, "upgraded")]) {
        if name == "upgraded" {
            run(&mut client, &format!("ts_set_org_tier('{order}', 'premium')"));
        }
        store_placed(&mut client, order, &[(name, 10)]);
        let rows = fetched(&mut client, &format!("'{name}', org => '{order}', auto_ack => true"));
        assert!(rows[0].gap.is_some(), "{order} {name}: {:?}", labels(&rows));
        assert_eq!(labels(&rows[1..]).last().map(String::as_str), Some(name), "{order}");
        assert_eq!(fetched(&mut client, &format!("'{name}', org => '{order}'")), [], "{order} {name}");
    }
}

#[test]
fn a_purge_that_was_kept_from_the_oldest_chunk_is_a_gap_as_well() {
    let database = database("held_up");
    let (mut client, mut holder) = (database.connect(), database.connect());
    run(&mut client, "ts_create_tier('gold', '6 hours')");
    for order in ORDERS {
        run(&mut client, &format!("ts_set_org_tier('{order}', 'gold')"));
        store_placed(&mut client, order, &[("seen", 19_000), ("lost", 12_000)]);
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}', 1, auto_ack => true"))), ["seen"]);
    }
    let oldest: String = one(
        &mut client,
        "SELECT tableoid::regclass::text FROM tailstream.events WHERE path = 'seen' ORDER BY created_at LIMIT 1",
    );
    holder
        .batch_execute(&format!("BEGIN; LOCK TABLE {oldest} IN ACCESS SHARE MODE"))
        .expect("a chunk in use");
    run(&mut client, "ts_alter_tier('gold', '1 hour')");
    client.execute("SELECT * FROM ts_apply_retention()", &[]).expect("the purge");
    let left = "SELECT DISTINCT path FROM tailstream.events WHERE path IN ('seen', 'lost')";
    assert_eq!(column::<String>(&mut client, left), ["seen"], "the younger chunk alone is gone");
    run(&mut client, "ts_alter_tier('gold', '6 hours')");
    for order in ORDERS {
        store_placed(&mut client, order, &[("new", 10)]);
        let rows = fetched(&mut client, &format!("'{order}', auto_ack => true"));
        assert!(rows[0].gap.is_some(), "{order}: {:?}", labels(&rows));
        assert_eq!(labels(&rows[1..]), ["new"], "{order}");
    }
}

#[test]
fn what_was_to_be_had_at_the_beginning_and_is_lost_later_is_a_gap() {
    let database = database("had");
    let mut client = database.connect();
    for order in ORDERS {
        run(&mut client, &format!("ts_set_org_tier('{order}', 'standard')"));
        run(&mut client, &format!("ts_set_org_tier('{order}', 'premium')"));
        store_placed(&mut client, order, &[("old", 18_000)]);
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}'"))), ["old"]);
        run(&mut client, &format!("ts_set_org_tier('{order}', 'standard')"));
        store_placed(&mut client, order, &[("new", 0)]);
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}'"))), [GAP, "new"], "{order}");
    }
}

#[test]
fn a_cursor_behind_the_positions_that_are_kept_says_so() {
    let database = database("forgotten");
    let mut client = database.connect();
    let first = store_placed(&mut client, "acme", &[("a", OLD), ("b", OLD - 60)]);
    for name in ["behind", "amid", "ahead"] {
        create(&mut client, &format!("'{name}', 'acme'"));
    }
    fetched(&mut client, "'amid', 1, auto_ack => true");
    fetched(&mut client, "'ahead', auto_ack => true");
    shorten(&mut client);
    // As the purge does it with positions older than every event; the cursors have stood still for as long.
    let forget = "DELETE FROM tailstream.positions WHERE batch_id <= $1";
    assert!(client.execute(forget, &[&first]).expect("positions gone") >= 1);
    let table = cursor_table(&mut client);
    let stood = format!("UPDATE {table} SET place_at = place_at - interval '8 days'");
    assert_eq!(client.execute(&stood, &[]).expect("older places"), 3);
    store_placed(&mut client, "acme", &[("c", 10)]);
    for name in ["behind", "amid"] {
        assert_eq!(
            labels(&fetched(&mut client, &format!("'{name}', auto_ack => true"))),
            [GAP, "c"],
            "{name}"
        );
        assert_eq!(fetched(&mut client, &format!("'{name}'")), [], "{name}");
    }
    // Whether that batch had more events nobody knows any more.
    let ahead = labels(&fetched(&mut client, "'ahead', auto_ack => true"));
    assert!(ahead == ["c"] || ahead == [GAP, "c"], "{ahead:?}");
    assert_eq!(fetched(&mut client, "'ahead'"), []);
    let events = page(&mut client, "'acme', NULL, NULL");
    assert_eq!(labels(&events), ["c"], "a page without a token begins at what is there");
}

#[test]
fn the_gap_behind_forgotten_positions_spans_what_was_lost() {
    let database = database("spanned");
    let mut client = database.connect();
    let first = store_placed(&mut client, "acme", &[("a", OLD)]);
    let lost: i64 = one(
        &mut client,
        "SELECT (extract(epoch FROM created_at) * 1000000)::bigint FROM tailstream.events WHERE org_id = 'acme'",
    );
    for name in ["short", "long"] {
        create(&mut client, &format!("'{name}', 'acme'"));
    }
    shorten(&mut client);
    let forget = "DELETE FROM tailstream.positions WHERE batch_id <= $1";
    assert!(client.execute(forget, &[&first]).expect("positions gone") >= 1);
    // One that stood before the event's time, and one that stood behind it: what comes late has an earlier time.
    let table = cursor_table(&mut client);
    for (name, age) in [("long", "8 days"), ("short", "2 hours")] {
        let stood = format!("UPDATE {table} SET place_at = now() - interval '{age}' WHERE name = '{name}'");
        assert_eq!(client.execute(&stood, &[]).expect("an older place"), 1);
    }
    store_placed(&mut client, "acme", &[("c", 10)]);
    run(&mut client, "ts_alter_tier('standard', '30 days')");
    for name in ["short", "long"] {
        let rows = fetched(&mut client, &format!("'{name}'"));
        assert_eq!(labels(&rows), [GAP, "c"], "{name}");
        let gap = rows[0].gap.clone().expect("a gap");
        assert!(gap.from <= Some(lost) && gap.to > Some(lost), "{name}: {gap:?} is not about {lost}");
    }
}

#[test]
fn a_backward_replay_tells_its_last_gap_once() {
    let database = database("told_once");
    let mut client = database.connect();
    // The batch spans the beginning of the range.
    store_placed(&mut client, "acme", &[("a", OLD), ("b", OLD - 1_000)]);
    store_placed(&mut client, "acme", &[("c", 10)]);
    let start = format!("(SELECT now() - interval '{} seconds')", OLD - 500);
    let start: String = one(&mut client, &format!("SELECT {start}::text"));
    let mut next = |after: &str| {
        page(
            &mut client,
            &format!("'acme', '{start}', NULL, after => {after}, page_size => 1, direction => 'backward'"),
        )
    };
    let first = next("NULL");
    assert_eq!(labels(&first), ["c"]);
    shorten(&mut database.connect());
    let gap = next(&format!("'{}'", first[0].cursor));
    assert_eq!(labels(&gap), [GAP]);
    assert_eq!(next(&format!("'{}'", gap[0].cursor)), []);
}
