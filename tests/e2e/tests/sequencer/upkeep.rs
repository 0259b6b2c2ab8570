//! Ledger and positions stay small and clean.

use std::thread;
use std::time::Duration;

use postgres::Client;
use tailstream_e2e::database::{column, ingest, one, pid, set_for_server, wait_until_blocked};
use tailstream_e2e::eventually;
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, position, soon_placed, wait_until_all_placed};
use tailstream_e2e::{Database, Server};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn no_table_of_the_sequencer_has_dead_rows() {
    const BATCHES: i64 = 2_000;
    let database = crate::database("no_dead_rows");
    let mut client = database.connect();
    for _ in 0..BATCHES {
        ingest(&mut client, "acme", "{}", None).expect("ingest");
    }
    wait_until_all_placed(&mut client, LONG);
    let sum = |client: &mut Client, table: &str, what: &str| -> i64 {
        let sql = format!(
            "SELECT coalesce(sum({what}), 0)::bigint FROM pg_stat_all_tables
             WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'tailstream.{table}'::regclass)
               -- A chunk that is made ahead has had a row.
               AND n_live_tup > 0"
        );
        one(client, &sql)
    };
    // Statistics come late: the dead rows are to be seen as soon as the living ones are.
    client.batch_execute("SELECT pg_stat_force_next_flush()").expect("statistics");
    for table in ["batches", "positions"] {
        eventually(&format!("the statistics of {table}"), LONG, || {
            (sum(&mut client, table, "n_live_tup") >= BATCHES).then_some(())
        });
        assert_eq!(sum(&mut client, table, "n_dead_tup"), 0, "{table}");
        assert_eq!(sum(&mut client, table, "n_tup_upd + n_tup_del"), 0, "{table}");
    }
    let others = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_all_tables
                  WHERE relid IN ('tailstream.sequencer'::regclass, 'tailstream.mirror'::regclass)";
    assert!(one::<i64>(&mut client, others) <= 2);
    check_positions(&mut client);
}

/// A batch of the ledger as if it had been stored then, by a transaction long ago or by this one.
fn old_batch(client: &mut Client, id: i64, age: &str, xid: &str) {
    let sql = format!(
        "INSERT INTO tailstream.batches (batch_id, received_at, xid, org_id, tier, event_count, first_event_at, last_event_at)
         SELECT {id}, t, {xid}, 'acme', 1, 1, t, t FROM (SELECT now() - interval '{age}') x (t)"
    );
    client.execute(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Has another sequencer begin: what was received before is that of transactions of before, however long ago.
fn restart_sequencer(client: &mut Client) {
    let ended = "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity
                 WHERE datname = current_database() AND backend_type = 'tailstream sequencer'";
    assert_eq!(column::<bool>(client, ended), [true]);
}

/// A position as if it had been given then.
fn old_position(client: &mut Client, seq: i64, age: &str) {
    let sql = format!(
        "INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                           first_event_at, last_event_at, events_before)
         SELECT {seq}, date_trunc('milliseconds', t), 0, {seq}, '3', 'acme', 1, 1, t, t, 0 FROM (SELECT now() - interval '{age}') x (t)"
    );
    client.execute(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn purge(client: &mut Client) {
    client.execute("SELECT * FROM ts_apply_retention()", &[]).expect("the purge");
}

fn numbers(client: &mut Client, sql: &str) -> Vec<i64> {
    column(client, sql)
}

#[test]
fn old_ledger_and_positions_go_and_what_is_needed_stays() {
    let database = crate::database("kept");
    let mut client = database.connect();
    let now = ingest(&mut client, "acme", &some_events(1), None).expect("ingest").batch_id;
    soon_placed(&mut client, now);
    for (seq, age) in [(-3, "10 days"), (-2, "8 days"), (-1, "4 days")] {
        old_position(&mut client, seq, age);
    }
    for (id, age) in [(-3, "8 days"), (-2, "2 days"), (-1, "12 hours")] {
        old_batch(&mut client, id, age, "'3'");
    }
    purge(&mut client);
    let ledger = "SELECT batch_id FROM tailstream.batches WHERE org_id <> 'chunks' ORDER BY 1";
    let positions = "SELECT seq FROM tailstream.positions WHERE org_id <> 'chunks' ORDER BY 1";
    assert_eq!(numbers(&mut client, ledger), [-1, now], "what was placed goes with the idempotency window");
    assert_eq!(
        numbers(&mut client, positions),
        [-2, -1, 2],
        "positions stay two days longer than events may"
    );
    client.execute("SELECT ts_alter_tier('premium', '1 day')", &[]).expect("a shorter retention");
    client
        .execute("SELECT ts_alter_tier('standard', '1 hour', stream_age => '3 days')", &[])
        .expect("a tier");
    purge(&mut client);
    assert_eq!(numbers(&mut client, positions), [-1, 2], "and than a stream may be made again");
    client.batch_execute("SELECT ts_alter_tier('standard', stream_age => '1 hour')").expect("a tier");
    set_for_server(&mut client, "tailstream.idempotency_window", "1h");
    purge(&mut client);
    set_for_server(&mut client, "tailstream.idempotency_window", "24h");
    assert_eq!(numbers(&mut client, positions), [2]);
    assert_eq!(numbers(&mut client, ledger), [now]);
    let next = ingest(&mut client, "acme", &some_events(1), None).expect("ingest").batch_id;
    assert_eq!(soon_placed(&mut client, next), 3);
}

#[test]
fn positions_behind_a_chunk_in_use_stay_until_it_goes() {
    let database = crate::database("in_order");
    let (mut client, mut reader) = (database.connect(), database.connect());
    let now = ingest(&mut client, "acme", &some_events(1), None).expect("ingest").batch_id;
    soon_placed(&mut client, now);
    // Chunks are not made in their order.
    for (seq, age) in [(-2, "11 days"), (-3, "12 days"), (-1, "10 days")] {
        old_position(&mut client, seq, age);
    }
    let chunk: String =
        one(&mut client, "SELECT tableoid::regclass::text FROM tailstream.positions WHERE seq = -2");
    reader.batch_execute(&format!("BEGIN; SELECT FROM {chunk}")).expect("a reader");
    purge(&mut client);
    let positions = "SELECT seq FROM tailstream.positions WHERE seq < 0 ORDER BY seq";
    assert_eq!(numbers(&mut client, positions), [-2, -1], "the oldest ones go");
    reader.batch_execute("COMMIT").expect("commit");
    purge(&mut client);
    assert_eq!(numbers(&mut client, positions), [0; 0]);
}

#[test]
fn a_ledger_without_places_is_kept_until_it_has_them() {
    let database = crate::database("unplaced");
    let (mut client, mut lock) = (database.connect(), database.connect());
    let first = ingest(&mut client, "acme", &some_events(1), None).expect("ingest").batch_id;
    soon_placed(&mut client, first);
    lock.batch_execute("BEGIN; LOCK TABLE ONLY tailstream.positions IN SHARE ROW EXCLUSIVE MODE")
        .expect("a sequencer that has to wait");
    old_batch(&mut client, 7, "2 days", "pg_current_xact_id()");
    purge(&mut client);
    let there = "SELECT count(*) FROM tailstream.batches WHERE batch_id = 7";
    assert_eq!(one::<i64>(&mut client, there), 1, "it has no place yet");
    restart_sequencer(&mut client);
    lock.batch_execute("COMMIT").expect("commit");
    assert_eq!(soon_placed(&mut client, 7), 3);
    purge(&mut client);
    assert_eq!(one::<i64>(&mut client, there), 0, "it has its place");
    assert_eq!(position(&mut client, 7), Some(3));
}

#[test]
fn without_a_sequencer_the_ledger_is_kept_as_long_as_the_events() {
    let database = Database::new(&Server::shared("sequencer"), "nobody_looks");
    let mut client = database.connect();
    for (id, age) in [(1, "9 days"), (2, "6 days"), (3, "2 days")] {
        old_batch(&mut client, id, age, "'3'");
    }
    old_position(&mut client, 1, "30 days");
    purge(&mut client);
    assert_eq!(
        numbers(&mut client, "SELECT batch_id FROM tailstream.batches WHERE org_id <> 'chunks' ORDER BY 1"),
        [2, 3]
    );
    let last = numbers(&mut client, "SELECT seq FROM tailstream.positions");
    assert_eq!(last, [1], "the last position says where the order goes on");
}

#[test]
fn an_erased_org_leaves_no_place_with_its_name_and_the_order_goes_on() {
    let database = crate::database("erased");
    let mut client = database.connect();
    for org in ["acme", "gone", "acme", "gone"] {
        let done = ingest(&mut client, org, &some_events(3), None).expect("ingest");
        soon_placed(&mut client, done.batch_id);
    }
    // Not placed when it is erased: it never is.
    let mut lock = database.connect();
    lock.batch_execute("BEGIN; LOCK TABLE ONLY tailstream.positions IN SHARE ROW EXCLUSIVE MODE")
        .expect("a lock");
    ingest(&mut client, "gone", &some_events(3), None).expect("ingest");
    lock.batch_execute("SELECT ts_erase_org('gone'); COMMIT").expect("ts_erase_org");
    let last = ingest(&mut client, "acme", &some_events(1), None).expect("ingest").batch_id;
    soon_placed(&mut client, last);
    let orgs: Vec<String> = column(
        &mut client,
        "SELECT DISTINCT org_id FROM tailstream.positions WHERE event_count > 0 ORDER BY 1",
    );
    assert_eq!(orgs, ["acme", "chunks"]);
    let named = "SELECT count(*) FROM tailstream.positions WHERE org_id = 'gone'";
    assert_eq!(one::<i64>(&mut client, named), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM tailstream.positions WHERE event_count > 0"), 4);
}

#[test]
fn who_waited_for_an_erasure_registers_the_org_anew() {
    let database = crate::database("anew");
    let (mut client, mut eraser, mut writer) = (database.connect(), database.connect(), database.connect());
    // The session knows the org from before.
    ingest(&mut writer, "acme", &some_events(1), None).expect("ingest");
    client.execute("SELECT ts_set_org_tier('acme', 'premium')", &[]).expect("an upgrade");
    ingest(&mut writer, "acme", &some_events(1), None).expect("ingest");
    eraser.batch_execute("BEGIN; SELECT ts_erase_org('acme')").expect("an erasure");
    let (waiting, holding) = (pid(&mut writer), pid(&mut eraser));
    let batch = thread::scope(|scope| {
        let batch = scope.spawn(move || ingest(&mut writer, "acme", &some_events(1), None));
        wait_until_blocked(&mut client, waiting, holding);
        eraser.batch_execute("COMMIT").expect("commit");
        batch.join().expect("the writer").expect("ingest").batch_id
    });
    let tier = "SELECT t.name FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier WHERE o.org_id = 'acme'";
    assert_eq!(column::<String>(&mut client, tier), ["standard"]);
    let stored = "SELECT tier::integer FROM tailstream.events WHERE org_id = 'acme'";
    assert_eq!(column::<i32>(&mut client, stored), [1]);
    soon_placed(&mut client, batch);
}

#[test]
fn a_batch_that_commits_while_the_purge_waits_for_its_ledger_gets_its_place() {
    let database = crate::database("waited_for");
    let [mut client, mut lock, mut writer, mut purger] = [(); 4].map(|()| database.connect());
    old_batch(&mut client, -1, "2 days", "'3'");
    let first = ingest(&mut client, "acme", &some_events(1), None).expect("ingest").batch_id;
    soon_placed(&mut client, first);
    lock.batch_execute("BEGIN; LOCK TABLE ONLY tailstream.positions IN SHARE ROW EXCLUSIVE MODE")
        .expect("a sequencer that has to wait");
    writer.batch_execute("BEGIN").expect("begin");
    old_batch(&mut writer, 7, "2 days", "pg_current_xact_id()");
    purger.batch_execute("SET tailstream.purge_lock_timeout = '30s'").expect("patience");
    let (waiting, holding) = (pid(&mut purger), pid(&mut writer));
    thread::scope(|scope| {
        let purging = scope.spawn(move || purge(&mut purger));
        wait_until_blocked(&mut client, waiting, holding);
        writer.batch_execute("COMMIT").expect("commit");
        purging.join().expect("the purge");
    });
    let there = "SELECT count(*) FROM tailstream.batches WHERE batch_id = 7";
    assert_eq!(one::<i64>(&mut client, there), 1, "it has no place yet");
    restart_sequencer(&mut client);
    lock.batch_execute("COMMIT").expect("commit");
    soon_placed(&mut client, 7);
    purge(&mut client);
    assert_eq!(one::<i64>(&mut client, there), 0, "it has its place");
}
