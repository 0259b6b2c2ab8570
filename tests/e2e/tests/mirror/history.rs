//! The mirror reads a long history only where a backfill asks for it. Old chunks are locked here, so a query that opens
//! one of them waits until it times out.

use postgres::Client;
use tailstream_e2e::Sides;
use tailstream_e2e::database::{column, one};
use tailstream_e2e::eventually;
use tailstream_e2e::mirror::PATIENCE;

use crate::database;

/// Creates the ledger and the positions of ten days, with a batch every six hours, for an org with a retention of a
/// year.
fn make_history(client: &mut Client) {
    client
        .batch_execute(
            "SELECT ts_create_tier('year', '365 days');
             SELECT ts_set_org_tier('acme', 'year');
             INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                               first_event_at, last_event_at, events_before)
             SELECT -n, date_trunc('milliseconds', t), 0, -n, '3', 'acme', (SELECT id FROM tailstream.tiers WHERE name = 'year'), 1, t, t, -n
             FROM generate_series(2, 41) n, LATERAL (SELECT clock_timestamp() - n * interval '6 hours') x (t);
             INSERT INTO tailstream.batches (batch_id, received_at, xid, org_id, tier, event_count, first_event_at, last_event_at)
             SELECT batch_id, placed_at, xid, org_id, tier, event_count, first_event_at, last_event_at
             FROM tailstream.positions WHERE seq < 0",
        )
        .expect("a history");
}

/// Locks all chunks older than seven hours. Returns how many there are.
fn lock_history(client: &mut Client) -> usize {
    let old = "SELECT c.chunk::text
               FROM (VALUES ('tailstream.positions', 'placed_at'), ('tailstream.batches', 'received_at')) AS t (name, of)
               CROSS JOIN tailstream.chunks(t.name, t.of) c WHERE c.range_end <= clock_timestamp() - interval '7 hours'";
    let chunks: Vec<String> = column(client, old);
    client
        .batch_execute(&format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", chunks.join(", ")))
        .expect("locks");
    chunks.len()
}

const NOW: &[&str] = &[
    "SELECT * FROM ts_mirror_status()",
    "SELECT * FROM ts_mirror_status('acme')",
    "SELECT * FROM ts_mirror_verify('acme')",
    "SELECT * FROM ts_replay_live('acme')",
    "SELECT * FROM ts_replay_live('acme', clock_timestamp() - interval '1 minute')",
    "SELECT * FROM ts_replay_live('acme', NULL, {id})",
    "SELECT count(*) FROM ts_replay_page('acme', NULL, NULL, (SELECT cursor FROM ts_replay_live('acme', clock_timestamp() - interval '1 minute')))",
    "SELECT ts_cursor_create('c{n}', 'acme', 'now')",
    "SELECT ts_cursor_create('t{n}', 'acme', clock_timestamp() - interval '1 minute')",
    "SELECT ts_cursor_create('e{n}', 'acme', clock_timestamp() - interval '1 minute', order_by => 'event_time')",
    "SELECT count(*) FROM ts_cursor_fetch('c{n}')",
    "SELECT count(*) FROM ts_cursor_fetch('e{n}', auto_ack => true)",
    "SELECT ts_cursor_ack('t{n}', (SELECT max(cursor) FROM ts_cursor_fetch('t{n}', 1)))",
    "SELECT count(*) FROM tailstream.cursors WHERE lag_events >= 0",
    "SELECT ts_cursor_seek('c{n}', 'now')",
    "SELECT ts_set_org_tier('acme', 'standard')",
    "SELECT ts_set_org_tier('acme', 'year')",
    "SELECT ts_alter_tier('year', stream_entries => 6000 + {n})",
    "SELECT ts_alter_tier('year', '366 days'), ts_alter_tier('year', '365 days')",
    "SELECT * FROM ts_metrics()",
];

/// Waits until the backlog is empty and the stream has this number of entries.
fn wait_for_entries(sides: &mut Sides, entries: usize) {
    eventually(&format!("{entries} entries"), PATIENCE, || {
        let status = sides.status();
        (status.backlog_batches == 0 && status.orgs_to_rebuild == 0 && sides.length("acme") == entries)
            .then_some(())
    });
}

#[test]
fn mirroring_new_events_opens_no_old_chunk() {
    let (database, mut sides) = database("history");
    let [mut client, mut lock, mut reader] = [(); 3].map(|()| database.connect());
    make_history(&mut client);
    sides.ingest("acme", 3);
    wait_for_entries(&mut sides, 3);
    assert!(lock_history(&mut lock) > 60);
    reader.batch_execute("SET statement_timeout = '15s'").expect("a limit");
    let mut entries = 3;
    // PostgreSQL may choose other plans after several executions.
    for n in 0..8 {
        sides.ingest("acme", 2);
        entries += 2;
        wait_for_entries(&mut sides, entries);
        for sql in NOW {
            let last = "(SELECT stream_id FROM ts_replay_live('acme'))";
            let sql = sql.replace("{n}", &n.to_string()).replace("{id}", last);
            reader.query(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }
    reader.batch_execute("SELECT ts_set_mirror('acme', true, backfill => '1 hour')").expect("ts_set_mirror");
    wait_for_entries(&mut sides, entries);
    end_worker(&mut client, "mirror");
    sides.ingest("acme", 2);
    wait_for_entries(&mut sides, entries + 2);
    // A sequencer that starts reads the whole ledger, because transactions that are still open may add to any part of
    // it. It records its polls, so that later ones need not do the same.
    lock.batch_execute("COMMIT").expect("commit");
    reader.batch_execute("BEGIN; SELECT pg_current_xact_id()").expect("an open transaction");
    end_worker(&mut client, "sequencer");
    sides.ingest("acme", 2);
    wait_for_entries(&mut sides, entries + 4);
    lock_history(&mut lock);
    assert_eq!(sides.status().backlog_batches, 0);
    lock.batch_execute("COMMIT").expect("commit");
    reader.batch_execute("COMMIT").expect("commit");
    let begun: String = one(&mut client, "SELECT pg_current_xact_id()::text");
    let over = format!("SELECT pg_snapshot_xmin(pg_current_snapshot()) > '{begun}'::xid8");
    eventually("what was open then to be over", PATIENCE, || one::<bool>(&mut client, &over).then_some(()));
    sides.ingest("acme", 2);
    wait_for_entries(&mut sides, entries + 6);
    lock_history(&mut lock);
    sides.ingest("acme", 2);
    wait_for_entries(&mut sides, entries + 8);
    lock.batch_execute("COMMIT").expect("commit");
    // Transactions of other databases write nothing here, regardless of when they began.
    let mut elsewhere = database.cluster.connect("postgres").expect("a connection");
    elsewhere.batch_execute("BEGIN; SELECT pg_current_xact_id()").expect("an open transaction");
    let mut prepared = database.cluster.connect("postgres").expect("a connection");
    prepared
        .batch_execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'elsewhere'")
        .expect("a prepared transaction");
    end_worker(&mut client, "sequencer");
    sides.ingest("acme", 2);
    wait_for_entries(&mut sides, entries + 10);
    lock_history(&mut lock);
    assert_eq!(sides.status().backlog_batches, 0);
    sides.ingest("acme", 2);
    wait_for_entries(&mut sides, entries + 12);
    prepared.batch_execute("ROLLBACK PREPARED 'elsewhere'").expect("a rollback");
    elsewhere.batch_execute("COMMIT").expect("commit");
    sides.ingest("acme", 2);
    wait_for_entries(&mut sides, entries + 14);
}

fn end_worker(client: &mut Client, role: &str) {
    let end = format!(
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'tailstream {role}'"
    );
    assert_eq!(column::<bool>(client, &end), [true]);
}
