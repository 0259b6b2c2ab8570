//! A cursor is part of the transaction that uses it.

use postgres::Client;
use tailstream_e2e::cursor::{ack, fetch, fetched, labels};
use tailstream_e2e::database::column;
use tailstream_e2e::{refused, sqlstate};

use crate::{ORDERS, create, database, run, store_placed};

fn names(client: &mut Client) -> Vec<String> {
    column(client, "SELECT name FROM tailstream.cursors ORDER BY 1")
}

#[test]
fn a_rollback_puts_everything_back() {
    let database = database("undone");
    let mut client = database.connect();
    for order in ORDERS {
        store_placed(&mut client, order, &[("a", 40), ("b", 30), ("c", 20), ("d", 10)]);
        let arguments = format!("'{order}', '{order}', order_by => '{order}'");
        let mut transaction = client.transaction().expect("a transaction");
        transaction.execute(&format!("SELECT ts_cursor_create({arguments})"), &[]).expect("a cursor");
        assert_eq!(fetched(&mut transaction, &format!("'{order}'")).len(), 4);
        transaction.rollback().expect("rollback");
        refused("a cursor undone", fetch(&mut client, &format!("'{order}'")), &["42704"]);
        create(&mut client, &arguments);
        fetched(&mut client, &format!("'{order}', 1, auto_ack => true"));
        for change in [
            "ts_cursor_fetch('c', 2, auto_ack => true)",
            "ts_cursor_seek('c', 'now')",
            "ts_cursor_seek('c', 'beginning')",
            "ts_cursor_seek('c', now())",
            "ts_cursor_drop('c')",
        ] {
            let change = change.replace("'c'", &format!("'{order}'"));
            client
                .batch_execute(&format!("BEGIN; SELECT * FROM {change}; ROLLBACK"))
                .expect("a change undone");
            assert_eq!(labels(&fetched(&mut client, &format!("'{order}', 2"))), ["b", "c"], "{change}");
        }
        let mut transaction = client.transaction().expect("a transaction");
        let rows = fetched(&mut transaction, &format!("'{order}'"));
        assert!(ack(&mut transaction, order, &rows[1].cursor).expect("an ack"));
        assert_eq!(labels(&fetched(&mut transaction, &format!("'{order}'"))), ["d"], "it sees its own ack");
        transaction.rollback().expect("rollback");
        assert_eq!(fetched(&mut client, &format!("'{order}'")), rows);
        // The rows were fetched all the same, and may be acknowledged later.
        assert!(ack(&mut client, order, &rows[1].cursor).expect("an ack"));
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}'"))), ["d"]);
    }
    assert_eq!(names(&mut client), ORDERS);
}

#[test]
fn a_savepoint_puts_back_what_came_after_it() {
    let database = database("savepoints");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 40), ("b", 30), ("c", 20), ("d", 10)]);
    create(&mut client, "'c', 'acme'");
    let next = "'c', 1, auto_ack => true";
    let mut transaction = client.transaction().expect("a transaction");
    assert_eq!(labels(&fetched(&mut transaction, next)), ["a"]);
    for _ in 0..3 {
        let mut part = transaction.savepoint("part").expect("a savepoint");
        assert_eq!(labels(&fetched(&mut part, next)), ["b"]);
        assert_eq!(labels(&fetched(&mut part, next)), ["c"]);
        part.rollback().expect("ROLLBACK TO");
    }
    let mut part = transaction.savepoint("part").expect("a savepoint");
    assert_eq!(labels(&fetched(&mut part, next)), ["b"]);
    part.commit().expect("RELEASE");
    transaction.commit().expect("commit");
    assert_eq!(labels(&fetched(&mut client, "'c'")), ["c", "d"]);
}

#[test]
fn a_prepared_transaction_keeps_the_cursor_until_it_ends() {
    let database = database("two_phases");
    let (mut consumer, mut client) = (database.connect(), database.connect());
    store_placed(&mut client, "acme", &[("a", 40), ("b", 30), ("c", 20), ("d", 10)]);
    create(&mut client, "'c', 'acme'");
    for (end, next) in [("ROLLBACK", "a"), ("COMMIT", "c")] {
        consumer.batch_execute("BEGIN").expect("begin");
        assert_eq!(labels(&fetched(&mut consumer, "'c', 2, auto_ack => true")), ["a", "b"]);
        consumer.batch_execute("PREPARE TRANSACTION 'consumed'").expect("PREPARE TRANSACTION");
        refused("a cursor in use", fetch(&mut client, "'c', nowait => true"), &["55P03"]);
        consumer.batch_execute(&format!("{end} PREPARED 'consumed'")).expect("the end");
        let rows = fetched(&mut client, "'c', 1, nowait => true");
        assert_eq!(labels(&rows), [next], "after {end}");
    }
}

/// A transaction whose snapshot was taken before others acknowledged and stored more.
fn with_old_snapshot(client: &mut Client, isolation: &str, meanwhile: impl FnOnce()) {
    client
        .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM tailstream.cursors"))
        .expect("a snapshot");
    meanwhile();
}

#[test]
fn an_old_snapshot_neither_repeats_nor_skips() {
    let database = database("snapshots");
    let (mut old, mut client) = (database.connect(), database.connect());
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        for order in ORDERS {
            let org = format!("{order} {isolation}");
            let call = |arguments: &str| format!("'c', org => '{org}'{arguments}");
            store_placed(&mut client, &org, &[("a", 50), ("b", 40), ("c", 30)]);
            create(&mut client, &format!("'c', '{org}', order_by => '{order}'"));
            with_old_snapshot(&mut old, isolation, || {
                let taken = fetched(&mut client, &call(", n => 1, auto_ack => true"));
                assert_eq!(labels(&taken), ["a"]);
                store_placed(&mut client, &org, &[("d", 20), ("e", 10)]);
            });
            // Either it is told to try again, or it goes on behind what is acknowledged, as far as it sees.
            match fetch(&mut old, &call(", n => 2, auto_ack => true")) {
                Ok(rows) => {
                    assert_eq!(labels(&rows), ["b", "c"], "{org}");
                    old.batch_execute("COMMIT").expect("commit");
                }
                Err(error) => {
                    assert_eq!(sqlstate(&error), "40001", "{org}: {error:?}");
                    old.batch_execute("ROLLBACK").expect("rollback");
                    assert_eq!(
                        labels(&fetched(&mut client, &call(", n => 2, auto_ack => true"))),
                        ["b", "c"]
                    );
                }
            }
            assert_eq!(labels(&fetched(&mut client, &call(""))), ["d", "e"], "{org}");
            // Alone it works as in any other transaction, and sees its own acks.
            old.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}")).expect("begin");
            assert_eq!(labels(&fetched(&mut old, &call(", n => 1, auto_ack => true"))), ["d"]);
            assert_eq!(labels(&fetched(&mut old, &call(", n => 1, auto_ack => true"))), ["e"]);
            assert_eq!(fetched(&mut old, &call("")), []);
            old.batch_execute("COMMIT").expect("commit");
            assert_eq!(fetched(&mut client, &call("")), []);
        }
    }
}

#[test]
fn an_old_snapshot_cannot_undo_a_seek_or_revive_what_was_dropped() {
    let database = database("old_snapshots");
    let (mut old, mut client) = (database.connect(), database.connect());
    store_placed(&mut client, "acme", &[("a", 50), ("b", 40), ("c", 30)]);
    create(&mut client, "'c', 'acme'");
    let rows = fetched(&mut client, "'c'");
    with_old_snapshot(&mut old, "REPEATABLE READ", || run(&mut client, "ts_cursor_seek('c', 'now')"));
    refused("an ack from before a seek", ack(&mut old, "c", &rows[1].cursor), &["40001", "55000"]);
    old.batch_execute("ROLLBACK").expect("rollback");
    assert_eq!(fetched(&mut client, "'c'"), []);
    for use_it in ["ts_cursor_fetch('c')", "ts_cursor_seek('c', 'beginning')", "ts_cursor_drop('c')"] {
        with_old_snapshot(&mut old, "REPEATABLE READ", || run(&mut client, "ts_cursor_drop('c')"));
        let gone = old.execute(&format!("SELECT * FROM {use_it}"), &[]);
        refused(use_it, gone, &["40001", "42704"]);
        old.batch_execute("ROLLBACK").expect("rollback");
        create(&mut client, "'c', 'acme'");
    }
    with_old_snapshot(&mut old, "REPEATABLE READ", || create(&mut client, "'new', 'acme'"));
    let twice = old.execute("SELECT ts_cursor_create('new', 'acme')", &[]);
    refused("a cursor that is there already", twice, &["40001", "42710"]);
    old.batch_execute("ROLLBACK").expect("rollback");
    assert_eq!(labels(&fetched(&mut client, "'new'")), ["a", "b", "c"]);
}
