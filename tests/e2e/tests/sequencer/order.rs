//! Every committed batch has one place, and what committed before something else began comes before it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Transaction};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, wait_until_all_placed};
use tailstream_e2e::{Database, Random, budget};

const ORGS: [&str; 4] = ["acme", "globex", "initech", "o'brien"];
const WRITERS: u64 = 8;

/// When a batch's transaction began and had committed, by one clock for all writers.
#[derive(Debug, Clone, Copy)]
struct Span {
    began: i64,
    committed: i64,
}

#[derive(Default)]
struct Scene {
    clock: AtomicI64,
    committed: Mutex<HashMap<i64, Span>>,
    aborted: Mutex<Vec<i64>>,
}

impl Scene {
    fn tick(&self) -> i64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

#[test]
fn every_committed_batch_has_one_place_in_the_order_of_commits() {
    let random = Random::new("sequencer");
    let (database, scene) = (crate::database("every"), Scene::default());
    let register = "SELECT ts_set_org_tier(org, 'standard') FROM unnest($1::text[]) org";
    // Transactions that register orgs in another order each would wait for one another.
    database.connect().execute(register, &[&&ORGS[..]]).expect("orgs");
    let until = Instant::now() + budget(6.0);
    thread::scope(|scope| {
        for number in 0..WRITERS {
            let (database, scene, random) = (&database, &scene, random.fork(number));
            scope.spawn(move || write(database, scene, random, until));
        }
    });
    let mut client = database.connect();
    wait_until_all_placed(&mut client, Duration::from_secs(20));
    check_positions(&mut client);
    let order: Vec<i64> = column(
        &mut client,
        "SELECT batch_id FROM tailstream.positions WHERE org_id <> 'chunks' ORDER BY seq",
    );
    let committed = scene.committed.into_inner().expect("the committed batches");
    assert_eq!(order.len(), committed.len());
    assert!(committed.len() > 300, "hardly anything was written");
    let mut latest_begin = (-1, 0);
    for batch in order {
        let span = committed[&batch];
        let (began, earlier) = latest_begin;
        assert!(span.committed > began, "{batch} had committed before {earlier} began and comes after it");
        latest_begin = latest_begin.max((span.began, batch));
    }
    let aborted = scene.aborted.into_inner().expect("the aborted batches");
    assert!(aborted.len() > 50 && aborted.iter().all(|batch| !committed.contains_key(batch)));
}

/// Transactions of some batches each: committed, rolled back, or rolled back in parts.
fn write(database: &Database, scene: &Scene, mut random: Random, until: Instant) {
    let mut client = database.connect();
    let lane = random.pick(&["auto", "executor"]);
    client.batch_execute(&format!("SET tailstream.ingest_lane = {lane}")).expect("lane");
    while Instant::now() < until {
        let began = scene.tick();
        let mut kept = Vec::new();
        let mut transaction = client.transaction().expect("a transaction");
        for _ in 0..=random.below(3) {
            if random.chance(20) {
                let mut savepoint = transaction.savepoint("part").expect("a savepoint");
                let undone = store(&mut savepoint, &mut random);
                savepoint.rollback().expect("ROLLBACK TO");
                scene.aborted.lock().expect("aborted").push(undone);
            }
            let mut part = transaction.savepoint("part").expect("a savepoint");
            kept.push(store(&mut part, &mut random));
            part.commit().expect("RELEASE");
        }
        if random.chance(15) {
            transaction.rollback().expect("rollback");
            scene.aborted.lock().expect("aborted").extend(kept);
            continue;
        }
        transaction.commit().expect("commit");
        let span = Span { began, committed: scene.tick() };
        scene.committed.lock().expect("committed").extend(kept.into_iter().map(|batch| (batch, span)));
    }
}

fn store(transaction: &mut Transaction<'_>, random: &mut Random) -> i64 {
    let events = some_events([1, 1, 3, 40][random.below(4)]);
    ingest(transaction, random.pick(&ORGS), &events, None).expect("ingest").batch_id
}

/// More batches than the sequencer takes in one look.
const HUGE: i64 = 5_000;

fn store_many(client: &mut Client, org: &str, count: i64) {
    let sql = format!("SELECT count(ts_ingest('{org}', '{{}}')) FROM generate_series(1, {count})");
    assert_eq!(one::<i64>(client, &sql), count);
}

#[test]
fn a_transaction_of_thousands_of_batches_is_placed_whole_while_others_go_on() {
    let database = crate::database("huge");
    let (mut huge, mut other) = (database.connect(), database.connect());
    // Begun before and committed after everything else: found by its number among the running ones.
    huge.batch_execute("BEGIN").expect("begin");
    store_many(&mut huge, "huge", HUGE);
    store_many(&mut other, "before", 100);
    wait_until_all_placed(&mut other, Duration::from_secs(20));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                store_many(&mut other, "meanwhile", 3);
            }
        });
        huge.batch_execute("COMMIT").expect("commit");
    });
    let mut client = database.connect();
    wait_until_all_placed(&mut client, Duration::from_secs(20));
    check_positions(&mut client);
    let sql = "SELECT org_id, count(*), count(DISTINCT xid::text) FROM tailstream.positions WHERE org_id <> 'chunks' GROUP BY 1 ORDER BY 1";
    let found: Vec<(String, i64, i64)> = client
        .query(sql, &[])
        .expect("positions")
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let meanwhile = ("meanwhile".to_owned(), 300, 100);
    assert_eq!(found, [("before".to_owned(), 100, 1), ("huge".to_owned(), HUGE, 1), meanwhile]);
}

#[test]
fn several_huge_transactions_at_once_are_placed_once() {
    let database = crate::database("interleaved");
    let mut open: Vec<Client> = (0..3).map(|_| database.connect()).collect();
    for (number, client) in open.iter_mut().enumerate() {
        client.batch_execute("BEGIN").expect("begin");
        store_many(client, &format!("org-{number}"), HUGE / 2);
    }
    let mut client = database.connect();
    store_many(&mut client, "after", HUGE);
    thread::scope(|scope| {
        for mut session in open {
            scope.spawn(move || session.batch_execute("COMMIT").expect("commit"));
        }
    });
    wait_until_all_placed(&mut client, Duration::from_secs(20));
    check_positions(&mut client);
    // The batches of one transaction keep their order.
    let turned = "SELECT count(*) FROM (SELECT batch_id < lag(batch_id) OVER (PARTITION BY xid::text ORDER BY seq) AS back
                  FROM tailstream.positions) p WHERE back";
    assert_eq!(one::<i64>(&mut client, turned), 0);
}

#[test]
fn batches_in_new_chunks_of_the_ledger_are_placed_like_others() {
    let database = crate::empty_database("new_chunks");
    // A chunk is made every six hours; here nearly every transaction makes one.
    let brief = "SELECT set_chunk_time_interval('tailstream.batches', interval '3 milliseconds'),
                        set_chunk_time_interval('tailstream.positions', interval '20 milliseconds')";
    database.connect().batch_execute(brief).expect("brief chunks");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = database.connect();
                for _ in 0..150 {
                    ingest(&mut client, "acme", &some_events(1), None).expect("ingest");
                }
            });
        }
    });
    let mut client = database.connect();
    let chunks = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tailstream.batches'::regclass";
    assert!(one::<i64>(&mut client, chunks) > 20);
    wait_until_all_placed(&mut client, Duration::from_secs(10));
    check_positions(&mut client);
}
