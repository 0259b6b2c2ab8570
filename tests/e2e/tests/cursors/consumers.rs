//! Several consumers of one cursor, who write down what they got in the transaction that acknowledges it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Error, IsolationLevel, Transaction};
use tailstream_devkit::event::now_micros;
use tailstream_e2e::bookkeeping::batch;
use tailstream_e2e::cursor::{ack, arrival_order, fetch, ids};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::positions::{check_positions, wait_until_all_placed};
use tailstream_e2e::{Database, Random, budget, sqlstate};

use crate::{LONG, create, database};

const PRODUCERS: u64 = 4;
const CONSUMERS: u64 = 3;
const ORGS: [&str; 2] = ["acme", "other"];

#[derive(Default)]
struct Scene {
    /// Batches that were rolled back.
    aborted: Mutex<Vec<i64>>,
    producing: AtomicBool,
    committed: AtomicUsize,
    rolled_back: AtomicUsize,
    serialization_failures: AtomicUsize,
}

#[test]
fn every_committed_event_is_consumed_once_in_the_order_of_the_positions() {
    let random = Random::new("consumers");
    let (database, scene) = (database("consumers"), Scene::default());
    scene.producing.store(true, Ordering::Relaxed);
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE results (number bigserial, id bigint NOT NULL, kind text NOT NULL);
             SELECT ts_set_org_tier(org, 'standard') FROM unnest('{acme,other}'::text[]) org",
        )
        .expect("a table of results");
    create(&mut client, "'c', 'acme'");
    let until = Instant::now() + budget(6.0);
    thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                let (database, scene, random) = (&database, &scene, random.fork(number));
                scope.spawn(move || produce(database, scene, random, until))
            })
            .collect();
        for number in 0..CONSUMERS {
            let (database, scene, random) = (&database, &scene, random.fork(100 + number));
            scope.spawn(move || consume(database, scene, random));
        }
        let failed = producers.into_iter().filter_map(|producer| producer.join().err()).count();
        // In a thread, so that the consumers end even if this fails.
        let placed = failed == 0 && scope.spawn(|| wait_until_all_placed(&mut client, LONG)).join().is_ok();
        scene.producing.store(false, Ordering::Relaxed);
        assert!(placed, "{failed} producers failed, or batches have no place");
    });
    check_positions(&mut client);
    let consumed: Vec<i64> = column(&mut client, "SELECT id FROM results ORDER BY number");
    let expected = arrival_order(&mut client, "acme");
    let first = consumed.iter().zip(&expected).position(|(found, wanted)| found != wanted);
    assert_eq!(first, None, "consumed in another order from event {first:?} of {} on", expected.len());
    assert_eq!(consumed.len(), expected.len());
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM results WHERE kind <> 'event'"), 0);
    let aborted = scene.aborted.into_inner().expect("the aborted batches");
    assert!(consumed.iter().all(|id| !aborted.contains(&(id >> 16))), "an event that was rolled back");
    let counts = [&scene.committed, &scene.rolled_back].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{} events, {} batches rolled back, {counts:?} transactions of consumers, {:?} not serializable",
        consumed.len(),
        aborted.len(),
        scene.serialization_failures
    );
    assert!(consumed.len() > 500 && aborted.len() > 10 && counts.iter().all(|count| *count > 10));
}

/// Transactions of some batches, that end as they like.
fn produce(database: &Database, scene: &Scene, mut random: Random, until: Instant) {
    let (mut client, mut slow) = (database.connect(), database.connect());
    while Instant::now() < until {
        if random.chance(20) {
            // Its batch has its number now and commits after what the other connection does meanwhile.
            let mut open = slow.transaction().expect("a transaction");
            let first = send(&mut open, &mut random);
            for _ in 0..=random.below(5) {
                transaction(&mut client, scene, &mut random);
            }
            send(&mut open, &mut random);
            end(open, scene, &mut random, vec![first]);
        } else {
            transaction(&mut client, scene, &mut random);
        }
    }
}

fn transaction(client: &mut Client, scene: &Scene, random: &mut Random) {
    let mut transaction = client.transaction().expect("a transaction");
    let mut sent = Vec::new();
    for _ in 0..=random.below(2) {
        let mut part = transaction.savepoint("part").expect("a savepoint");
        let batch = send(&mut part, random);
        if random.chance(15) {
            part.rollback().expect("ROLLBACK TO");
            scene.aborted.lock().expect("aborted").push(batch);
        } else {
            part.commit().expect("RELEASE");
            sent.push(batch);
        }
    }
    end(transaction, scene, random, sent);
}

fn send(transaction: &mut Transaction<'_>, random: &mut Random) -> i64 {
    let late = if random.chance(30) { 7_000_000_000 } else { 1_000_000 };
    let ages: Vec<i64> = (0..[1, 2, 5, 60][random.below(4)]).map(|_| random.between(0, late)).collect();
    let json = batch(0, now_micros(), &ages);
    ingest(transaction, random.pick(&ORGS), &json, None).expect("ingest").batch_id
}

fn end(transaction: Transaction<'_>, scene: &Scene, random: &mut Random, sent: Vec<i64>) {
    if random.chance(20) {
        transaction.rollback().expect("rollback");
        scene.aborted.lock().expect("aborted").extend(sent);
    } else {
        transaction.commit().expect("commit");
    }
}

/// Consumes until there is nothing more and nobody produces.
fn consume(database: &Database, scene: &Scene, mut random: Random) {
    let mut client = database.connect();
    loop {
        let producing = scene.producing.load(Ordering::Relaxed);
        match attempt(&mut client, scene, &mut random) {
            Ok(Some(0)) if !producing => return,
            Ok(_) => (),
            // Another one has it, or had it since the snapshot.
            Err(error) if ["55P03", "40001"].contains(&&*sqlstate(&error)) => {
                scene.serialization_failures.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// One transaction; returns how much it consumed, nothing if it was rolled back.
fn attempt(client: &mut Client, scene: &Scene, random: &mut Random) -> Result<Option<usize>, Error> {
    let repeatable = random.chance(25);
    let isolation = if repeatable { IsolationLevel::RepeatableRead } else { IsolationLevel::ReadCommitted };
    let mut transaction = client.build_transaction().isolation_level(isolation).start()?;
    let mut options = format!("n => {}", [1, 3, 20, 500][random.below(4)]);
    if random.chance(20) {
        options.push_str(", nowait => true");
    }
    if !repeatable && random.chance(30) {
        options.push_str(", timeout => '20 ms'");
    }
    let consumed = if random.chance(50) {
        let insert = format!(
            "INSERT INTO results (id, kind) SELECT id, kind FROM ts_cursor_fetch('c', auto_ack => true, {options})"
        );
        transaction.execute(&insert, &[])? as usize
    } else {
        by_hand(&mut transaction, &options)?
    };
    // Not a synchronisation: others shall come at every moment.
    thread::sleep(Duration::from_millis(random.between(0, 4) as u64));
    if random.chance(25) {
        transaction.rollback()?;
        scene.rolled_back.fetch_add(1, Ordering::Relaxed);
        return Ok(None);
    }
    transaction.commit()?;
    scene.committed.fetch_add(1, Ordering::Relaxed);
    Ok(Some(consumed))
}

/// As a client does that works on the rows before it acknowledges them, perhaps not all.
fn by_hand(transaction: &mut Transaction<'_>, options: &str) -> Result<usize, Error> {
    let rows = fetch(transaction, &format!("'c', {options}"))?;
    let kept = &rows[..rows.len().div_ceil(2)];
    let Some(last) = kept.last() else {
        return Ok(0);
    };
    transaction.execute(
        "INSERT INTO results (id, kind) SELECT id, 'event' FROM unnest($1::bigint[]) id",
        &[&ids(kept)],
    )?;
    assert!(ack(transaction, "c", &last.cursor)?, "what was just fetched is behind the position");
    Ok(kept.len())
}
