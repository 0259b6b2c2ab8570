//! Transactions that take long delay nobody, and their own events come when they commit.

use std::time::{Duration, Instant};

use postgres::Client;
use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, position, soon_placed};
use tailstream_e2e::{Database, Server, eventually};

const LONG: Duration = Duration::from_secs(20);

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

/// Chunks of the next three hours that are not there.
const MISSING: &str = "SELECT count(*) FROM tailstream.missing_chunks('3 hours')";

/// A client that has stored an event of two days ago, whose hour had no chunk, and idles in its transaction.
fn idle_after_a_late_event(client: &mut Client) {
    client
        .batch_execute(
            "BEGIN; SELECT * FROM ts_ingest('late', json_build_array(json_build_object('created_at', now() - interval '2 days')))",
        )
        .expect("a late event");
}

#[test]
fn who_idles_after_a_late_event_holds_up_nobody_at_the_next_hour() {
    let database = crate::database("border");
    let [mut client, mut idle] = [(); 2].map(|()| database.connect());
    client.batch_execute("SELECT ts_set_org_tier('late', 'premium')").expect("a tier");
    eventually("chunks ahead", Duration::from_secs(30), || {
        (one::<i64>(&mut client, MISSING) == 0).then_some(())
    });
    idle_after_a_late_event(&mut idle);
    client.batch_execute("SET statement_timeout = '10s'").expect("a timeout");
    for hours in [1, 2] {
        let event =
            format!("json_build_array(json_build_object('created_at', now() + interval '{hours} hours'))");
        let ingest = format!("SELECT batch_id FROM ts_ingest('acme', {event})");
        let batch: i64 = one(&mut client, &ingest);
        soon_placed(&mut client, batch);
    }
}

#[test]
fn places_do_not_wait_for_chunks_that_cannot_be_made() {
    let database = crate::database("unmade");
    let [mut client, mut idle] = [(); 2].map(|()| database.connect());
    client.batch_execute("SELECT ts_set_org_tier('late', 'premium')").expect("a tier");
    eventually("chunks ahead", Duration::from_secs(30), || {
        (one::<i64>(&mut client, MISSING) == 0).then_some(())
    });
    let sequencer = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity
                     WHERE datname = current_database() AND backend_type = 'tailstream sequencer'";
    let before: i32 = one(&mut client, sequencer);
    idle_after_a_late_event(&mut idle);
    client
        .batch_execute(
            "SELECT _timescaledb_functions.drop_chunk(c.chunk) FROM tailstream.chunks('tailstream.events', 'created_at') c
             WHERE c.range_start > now() + interval '5 minutes'",
        )
        .expect("no chunks ahead");
    client.execute("SELECT pg_terminate_backend($1, 20000)", &[&before]).expect("another sequencer");
    eventually("another sequencer", Duration::from_secs(20), || {
        (one::<i32>(&mut client, sequencer) != 0).then_some(())
    });
    let placed =
        client.prepare("SELECT seq FROM tailstream.last_position() WHERE seq > $1").expect("a query");
    let mut slowest = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let last: i64 = one(&mut client, "SELECT seq FROM tailstream.last_position()");
        ingest(&mut client, "acme", "{}", None).expect("ingest");
        let sent = Instant::now();
        while client.query(&placed, &[&last]).expect("positions").is_empty() {
            assert!(sent.elapsed() < LONG, "it never got a place");
        }
        slowest = slowest.max(sent.elapsed());
    }
    assert!(one::<i64>(&mut client, MISSING) > 0, "nobody was in the way");
    assert!(slowest < Duration::from_millis(500), "a batch waited {slowest:?} for its place");
    idle.batch_execute("ROLLBACK").expect("rollback");
    eventually("chunks ahead", LONG, || (one::<i64>(&mut client, MISSING) == 0).then_some(()));
}
