//! Errors inside a worker: it survives them, says so, and goes on when they are over.

use std::fs::{self, OpenOptions};
use std::time::Instant;

use tailstream_e2e::database::one;
use tailstream_e2e::positions::check_positions;
use tailstream_e2e::{Mirror, Sides, eventually, refused};

use crate::{LONG, pids, wait_for_workers};

fn health(sides: &mut Sides, worker: &str) -> (String, String) {
    let sql = format!("SELECT status, detail FROM ts_health() WHERE component = '{worker}'");
    let row = sides.client.query_one(&sql, &[]).expect("ts_health");
    (row.get(0), row.get(1))
}

#[track_caller]
fn wait_for_health(sides: &mut Sides, worker: &str, wanted: &str) {
    let began = Instant::now();
    loop {
        let (status, detail) = health(sides, worker);
        if status == wanted {
            return;
        }
        assert!(began.elapsed() < LONG, "{worker} is {status}, not {wanted}: {detail}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_table_that_is_gone_for_a_while_is_survived() {
    let mirror = Mirror::new("workers-table");
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.settle(&["acme"]);
    let workers = |sides: &mut Sides| {
        (pids(&mut sides.client, "app", "sequencer"), pids(&mut sides.client, "app", "mirror"))
    };
    let before = workers(&mut sides);
    for table in ["batches", "positions", "mirror", "mirror_rebuilds", "orgs"] {
        let hidden = format!("ALTER TABLE tailstream.{table} RENAME TO hidden");
        sides.client.batch_execute(&hidden).unwrap_or_else(|error| panic!("{hidden}: {error:?}"));
        // Something for them to fail at.
        let mut client = mirror.connect();
        let _ = client.batch_execute("SELECT ts_ingest('acme', '{}')");
        let _ = client.batch_execute("SELECT ts_ingest('acme', '{}')");
        if table != "mirror" && table != "mirror_rebuilds" && table != "orgs" {
            wait_for_health(&mut sides, "sequencer", "error");
        }
        let back = format!("ALTER TABLE tailstream.hidden RENAME TO {table}");
        sides.client.batch_execute(&back).unwrap_or_else(|error| panic!("{back}: {error:?}"));
        sides.ingest("acme", 3);
        wait_for_health(&mut sides, "sequencer", "ok");
        sides.settle(&["acme"]);
        wait_for_health(&mut sides, "mirror", "ok");
    }
    assert_eq!(workers(&mut sides), before, "the processes lived through it");
    check_positions(&mut sides.client);
}

#[test]
fn a_position_of_nonsense_holds_up_its_own_org_alone() {
    let mirror = Mirror::new("workers-nonsense");
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.ingest("globex", 5);
    sides.settle(&["acme", "globex"]);
    mirror.set("tailstream.redis_url", "redis://127.0.0.1:1");
    sides.wait_for_state("failing");
    let bad = sides.ingest("acme", 5);
    let good = sides.ingest("globex", 5);
    sides.wait_until_placed();
    let nonsense = format!(
        "UPDATE tailstream.positions SET batch_id = 70000000000000, tier = 77, event_count = 65536,
             first_event_at = 'infinity', last_event_at = '-infinity' WHERE batch_id = {bad}"
    );
    sides.client.batch_execute(&nonsense).expect("nonsense");
    mirror.set("tailstream.redis_url", &mirror.redis.url());
    wait_for_last(&mut sides, "globex", good);
    sides
        .client
        .batch_execute("DELETE FROM tailstream.positions WHERE batch_id = 70000000000000")
        .expect("its end");
    sides.client.execute("DELETE FROM tailstream.batches WHERE batch_id = $1", &[&bad]).expect("its end");
    // The events that it spoke of are missing, and a stream has no holes: what came before was trimmed.
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    sides.ingest("acme", 2);
    sides.ingest("globex", 2);
    sides.settle(&["acme", "globex"]);
    wait_for_health(&mut sides, "mirror", "ok");
}

/// Waits until the last entry of a stream is of this batch.
#[track_caller]
fn wait_for_last(sides: &mut Sides, org: &str, batch: i64) {
    eventually(&format!("the last events of {org}"), LONG, || {
        sides.stream(org).last().is_some_and(|entry| entry.event_id >> 16 == batch).then_some(())
    });
}

#[test]
fn a_row_that_cannot_be_read_holds_up_its_own_org_alone() {
    let mut mirror = Mirror::new("workers-unreadable");
    let mut sides = mirror.sides();
    sides.ingest("globex", 5);
    sides.settle(&["globex"]);
    mirror.set("tailstream.redis_url", "redis://127.0.0.1:1");
    sides.wait_for_state("failing");
    // Too large to stand in the row itself, and then no longer where the row says it is.
    let noise = "SELECT ts_ingest('acme', json_build_array(json_build_object('path',
                     (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n))))";
    sides.client.batch_execute(noise).expect("ingest");
    sides.wait_until_placed();
    let file: String = one(
        &mut sides.client,
        "SELECT pg_relation_filepath(c.reltoastrelid) FROM pg_class c JOIN tailstream.events e ON e.tableoid = c.oid
         WHERE e.org_id = 'acme'",
    );
    mirror.cluster.stop().expect("the server stopped");
    let file = mirror.cluster.data_dir().join(file);
    assert!(fs::metadata(&file).expect("the file").len() > 0);
    OpenOptions::new().write(true).open(&file).and_then(|file| file.set_len(0)).expect("a lost file");
    mirror.cluster.start().expect("the server");
    let mut sides = mirror.sides();
    refused(
        "reading",
        sides.client.batch_execute("SELECT path FROM tailstream.events"),
        &["XX000", "XX001", "58030"],
    );
    let good = sides.ingest("globex", 3);
    mirror.set("tailstream.redis_url", &mirror.redis.url());
    wait_for_last(&mut sides, "globex", good);
    wait_for_workers(&mut sides.client, "app");
    eventually("health to say which org it is", LONG, || {
        health(&mut sides, "mirror").1.contains("acme").then_some(())
    });
    // What cannot be read cannot be erased either; but it need not be mirrored.
    sides.client.batch_execute("SELECT ts_set_mirror('acme', false)").expect("ts_set_mirror");
    sides.ingest("globex", 1);
    sides.settle(&["globex"]);
    wait_for_health(&mut sides, "mirror", "ok");
}
