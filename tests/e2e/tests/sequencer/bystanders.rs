//! Transactions that take long delay nobody, and their own events come when they commit.

use std::time::{Duration, Instant};

use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, position, soon_placed};
use tailstream_e2e::{Database, Server};

/// One batch by a session of its own is placed soon.
#[track_caller]
fn others_go_on(database: &Database) -> i64 {
    let mut client = database.connect();
    let done = ingest(&mut client, "other", &some_events(2), None).expect("ingest");
    soon_placed(&mut client, done.batch_id)
}

#[test]
fn an_idle_transaction_delays_nobody_and_its_events_come_when_it_commits() {
    let database = crate::database("idle");
    let (mut idle, mut writer, mut client) = (database.connect(), database.connect(), database.connect());
    idle.batch_execute("BEGIN; SELECT pg_current_xact_id()").expect("a transaction id and nothing else");
    let mut open = writer.transaction().expect("a transaction");
    let late = ingest(&mut open, "late", &some_events(3), None).expect("ingest").batch_id;
    let mut before = 0;
    for _ in 0..5 {
        before = others_go_on(&database);
    }
    assert_eq!(position(&mut client, late), None, "what is not committed has no place");
    open.commit().expect("commit");
    assert!(soon_placed(&mut client, late) > before);
    assert!(others_go_on(&database) > before + 1);
    idle.batch_execute("ROLLBACK").expect("rollback");
    others_go_on(&database);
    check_positions(&mut client);
}

#[test]
fn a_prepared_transaction_delays_nobody_and_wakes_the_sequencer_when_it_commits() {
    let database = crate::database("prepared");
    let mut client = database.connect();
    let mut delays = Vec::new();
    for round in 0..7 {
        client.batch_execute("BEGIN").expect("begin");
        let late = ingest(&mut client, "late", &some_events(3), None).expect("ingest").batch_id;
        client.batch_execute(&format!("PREPARE TRANSACTION 'late-{round}'")).expect("PREPARE TRANSACTION");
        let before = others_go_on(&database);
        assert_eq!(position(&mut client, late), None, "what is only prepared has no place");
        client.batch_execute(&format!("COMMIT PREPARED 'late-{round}'")).expect("COMMIT PREPARED");
        let committed = Instant::now();
        assert!(soon_placed(&mut client, late) > before);
        delays.push(committed.elapsed());
    }
    // Without being woken the sequencer looks once a second, and half of the rounds took longer than half of that.
    delays.sort_unstable();
    assert!(delays[delays.len() / 2] < Duration::from_millis(300), "{delays:?}");

    client.batch_execute("BEGIN").expect("begin");
    let never = ingest(&mut client, "never", &some_events(1), None).expect("ingest").batch_id;
    client.batch_execute("PREPARE TRANSACTION 'never'; ").expect("PREPARE TRANSACTION");
    client.batch_execute("ROLLBACK PREPARED 'never'").expect("ROLLBACK PREPARED");
    others_go_on(&database);
    assert_eq!(position(&mut client, never), None);
    check_positions(&mut client);
}

#[test]
fn a_long_transaction_in_another_database_delays_nobody() {
    let database = crate::database("elsewhere");
    let other = Database::empty(&Server::shared("sequencer"), "index");
    let (mut builder, mut second) = (other.connect(), other.connect());
    builder
        .batch_execute(
            "CREATE TABLE numbers AS SELECT n FROM generate_series(1, 50000) n;
             BEGIN; CREATE INDEX ON numbers (n); INSERT INTO numbers VALUES (0)",
        )
        .expect("an index that takes its time");
    second.batch_execute("BEGIN; CREATE TABLE more (n int)").expect("a transaction that writes");
    for _ in 0..3 {
        others_go_on(&database);
    }
    builder.batch_execute("COMMIT").expect("commit");
    second.batch_execute("ROLLBACK").expect("rollback");
    others_go_on(&database);
    let mut client = database.connect();
    check_positions(&mut client);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM tailstream.positions WHERE org_id = 'other'"),
        4
    );
}
