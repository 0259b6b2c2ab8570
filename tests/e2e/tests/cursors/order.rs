//! What comes next does not depend on numbers, times or transactions that take long.

use tailstream_e2e::cursor::{fetched, ids, labels, store};
use tailstream_e2e::database::column;
use tailstream_e2e::positions::soon_placed;

use crate::{create, database, run, store_placed};

#[test]
fn what_takes_its_number_first_and_commits_last_comes_last() {
    let database = database("latecomers");
    let (mut client, mut slow) = (database.connect(), database.connect());
    // Whoever stores the first events of an org keeps others from that until its transaction ends.
    run(&mut client, "ts_set_org_tier('acme', 'standard')");
    create(&mut client, "'arrival', 'acme'");
    create(&mut client, "'event_time', 'acme', order_by => 'event_time'");
    let mut open = slow.transaction().expect("a transaction");
    let first = store(&mut open, "acme", &[("slow", 100), ("slower", 0)]);
    let second = store_placed(&mut client, "acme", &[("quick", 50)]);
    assert!(first < second, "the slow one has the lower id");
    assert_eq!(labels(&fetched(&mut client, "'arrival', auto_ack => true")), ["quick"]);
    assert_eq!(labels(&fetched(&mut client, "'event_time', auto_ack => true")), ["quick"]);
    open.commit().expect("commit");
    soon_placed(&mut client, first);
    store_placed(&mut client, "acme", &[("late", 3_000), ("new", 0)]);
    let rows = fetched(&mut client, "'arrival', auto_ack => true");
    assert_eq!(labels(&rows), ["slow", "slower", "late", "new"]);
    let rows = fetched(&mut client, "'event_time', auto_ack => true");
    assert_eq!(labels(&rows), ["slower", "new"], "what is earlier than the position is not seen by time");
}

#[test]
fn open_and_prepared_transactions_and_other_databases_delay_nobody() {
    let database = database("unfinished");
    let mut client = database.connect();
    run(&mut client, "ts_set_org_tier('acme', 'standard')");
    create(&mut client, "'c', 'acme'");
    let mut elsewhere = database.cluster.connect("postgres").expect("a connection");
    elsewhere.batch_execute("BEGIN; SELECT pg_current_xact_id()").expect("a transaction that idles");
    let (mut idle, mut writer, mut preparing) = (database.connect(), database.connect(), database.connect());
    idle.batch_execute("BEGIN; SELECT pg_current_xact_id()").expect("a transaction that idles");
    let mut open = writer.transaction().expect("a transaction");
    let opened = store(&mut open, "acme", &[("open", 0)]);
    preparing.batch_execute("BEGIN").expect("begin");
    let prepared = store(&mut preparing, "acme", &[("prepared", 0)]);
    preparing.batch_execute("PREPARE TRANSACTION 'cursors'").expect("PREPARE TRANSACTION");
    let next = "'c', auto_ack => true";
    for path in ["a", "b", "c"] {
        store_placed(&mut client, "acme", &[(path, 0)]);
        assert_eq!(labels(&fetched(&mut client, next)), [path], "at once, whatever is unfinished");
    }
    preparing.batch_execute("COMMIT PREPARED 'cursors'").expect("COMMIT PREPARED");
    soon_placed(&mut client, prepared);
    assert_eq!(labels(&fetched(&mut client, next)), ["prepared"]);
    open.commit().expect("commit");
    soon_placed(&mut client, opened);
    assert_eq!(labels(&fetched(&mut client, next)), ["open"]);
    assert_eq!(fetched(&mut client, next), []);
    for mut session in [idle, elsewhere] {
        session.batch_execute("ROLLBACK").expect("rollback");
    }
}

#[test]
fn what_a_savepoint_undid_never_comes() {
    let database = database("undone_parts");
    let (mut client, mut writer) = (database.connect(), database.connect());
    create(&mut client, "'c', 'acme'");
    let mut transaction = writer.transaction().expect("a transaction");
    for path in ["a", "b", "c"] {
        let mut part = transaction.savepoint("part").expect("a savepoint");
        store(&mut part, "acme", &[("undone", 0)]);
        part.rollback().expect("ROLLBACK TO");
        let mut part = transaction.savepoint("part").expect("a savepoint");
        store(&mut part, "acme", &[(path, 0)]);
        part.commit().expect("RELEASE");
    }
    transaction.commit().expect("commit");
    store_placed(&mut client, "acme", &[("after", 0)]);
    assert_eq!(labels(&fetched(&mut client, "'c'")), ["a", "b", "c", "after"]);
}

#[test]
fn events_of_one_moment_come_in_the_order_of_their_ids() {
    let database = database("ties");
    let mut client = database.connect();
    let sql = "SELECT count(ts_ingest('acme', (SELECT json_agg(json_build_object('created_at', t, 'path', n::text)) FROM generate_series(1, 5) n)))
               FROM (SELECT now() - interval '1 minute') x (t), generate_series(1, 4)";
    client.execute(sql, &[]).expect("batches of one moment");
    store_placed(&mut client, "acme", &[("last", 0)]);
    create(&mut client, "'c', 'acme', order_by => 'event_time'");
    let expected: Vec<i64> =
        column(&mut client, "SELECT id FROM tailstream.events WHERE org_id = 'acme' ORDER BY created_at, id");
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let rows = fetched(&mut client, "'c', 3, auto_ack => true");
        assert_eq!(rows.len(), 3, "after {} of {}", seen.len(), expected.len());
        seen.extend(ids(&rows));
    }
    assert_eq!(seen, expected);
}
