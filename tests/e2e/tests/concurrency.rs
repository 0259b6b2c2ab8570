//! Writers, readers and the purge at once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tailstream_devkit::event::now_micros;
use tailstream_e2e::bookkeeping::{Bookkeeping, Fate, batch, check_ledger};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::{Database, Ingested, Random, Server, budget, sqlstate};

const ORGS: [&str; 6] = ["acme", "globex", "initech", "o'brien", "{curly}", "new:org"];
const WRITERS: u64 = 16;
const READERS: u64 = 3;
/// Microseconds: younger than the shortest retention, so that no purge may take it.
const OLDEST: i64 = 2 * 3_600_000_000;

struct Scene {
    database: Database,
    books: Bookkeeping,
    writing: AtomicBool,
}

impl Scene {
    fn writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }
}

#[test]
fn every_acknowledged_event_is_there_once() {
    let random = Random::new("concurrency");
    let scene = Scene {
        database: Database::new(&Server::shared("concurrency"), "writers"),
        books: Bookkeeping::default(),
        writing: AtomicBool::new(true),
    };
    let mut client = scene.database.connect();
    client
        .batch_execute(
            "SELECT ts_create_tier('brief', '150 minutes');
             SELECT ts_set_org_tier('globex', 'premium');
             SELECT ts_set_org_tier('initech', 'brief');
             CREATE TABLE upgraded (org text)",
        )
        .expect("tiers");
    let until = Instant::now() + budget(15.0);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (scene, random) = (&scene, random.fork(number));
                scope.spawn(move || write(scene, random, until))
            })
            .collect();
        let mut others = Vec::new();
        for number in 0..READERS {
            let (scene, random) = (&scene, random.fork(100 + number));
            others.push(("a reader", scope.spawn(move || replay(scene, random))));
        }
        others.push(("the purge", scope.spawn(|| purge(&scene))));
        others.push(("the ageing of events", scope.spawn(|| age(&scene))));
        let failed: Vec<_> = writers.into_iter().filter_map(|writer| writer.join().err()).collect();
        scene.writing.store(false, Ordering::Relaxed);
        let worked: Vec<_> =
            others.into_iter().map(|(name, other)| (name, other.join().expect(name))).collect();
        assert!(failed.is_empty(), "{} writers failed", failed.len());
        assert!(worked.iter().all(|(_, work)| *work > 0), "one of the others never got to work: {worked:?}");
    });

    Bookkeeping::check(
        &mut client,
        "tailstream.events WHERE org_id NOT LIKE 'aged%'",
        &scene.books.sent(None),
    );
    check_ledger_of_sent(&mut client);
    for fate in [Fate::Acknowledged, Fate::Aborted] {
        assert!(scene.books.count(fate) > 20, "too few batches: {fate:?}");
    }
    let lost: Vec<String> = column(
        &mut client,
        "SELECT u.org FROM upgraded u LEFT JOIN tailstream.log_events e ON e.org_id = u.org
         GROUP BY 1 HAVING count(e.path) <> 300 OR count(DISTINCT e.path) <> 300",
    );
    assert!(lost.is_empty(), "rows lost or doubled of the upgraded orgs {lost:?}");
}

/// The rows that `age` puts into the table itself have no ledger.
fn check_ledger_of_sent(client: &mut Client) {
    client
        .batch_execute("BEGIN; DELETE FROM tailstream.events WHERE org_id LIKE 'aged%'")
        .expect("without aged rows");
    check_ledger(client);
    client.batch_execute("ROLLBACK").expect("rollback");
}

/// Sends batches in every way there is until the time is over.
fn write(scene: &Scene, mut random: Random, until: Instant) {
    let mut client = scene.database.connect();
    let lane = random.pick(&["auto", "direct", "executor"]);
    client.batch_execute(&format!("SET tailstream.ingest_lane = {lane}")).expect("lane");
    while Instant::now() < until {
        let org = random.pick(&ORGS);
        match random.below(10) {
            0 | 1 => rolled_back(scene, &mut client, &mut random, org),
            2 => partly_rolled_back(scene, &mut client, &mut random, org),
            3..=5 => with_shared_key(scene, &mut client, &mut random, org),
            _ => {
                let (number, size, json) = some_batch(scene, &mut random);
                acknowledge(scene, number, org, size, ingest(&mut client, org, &json, None));
            }
        }
    }
}

fn some_batch(scene: &Scene, random: &mut Random) -> (i64, usize, String) {
    let size = [1, 2, 7, 100, 900][random.below(5)];
    let spread = [1, 1_000_000, OLDEST][random.below(3)];
    let ages: Vec<i64> = (0..size).map(|_| random.between(0, spread)).collect();
    let number = scene.books.number();
    (number, size, batch(number, now_micros(), &ages))
}

fn acknowledge(
    scene: &Scene,
    number: i64,
    org: &str,
    size: usize,
    result: Result<Ingested, postgres::Error>,
) {
    let done = result.unwrap_or_else(|error| panic!("batch {number} of {org}: {error:?}"));
    assert_eq!((done.rejected, done.expired), (0, 0), "batch {number}");
    let fate = if done.duplicate { Fate::Aborted } else { Fate::Acknowledged };
    if !done.duplicate {
        assert_eq!(done.accepted as usize, size, "batch {number}");
    }
    scene.books.note(number, org, size, fate);
}

fn rolled_back(scene: &Scene, client: &mut Client, random: &mut Random, org: &str) {
    let mut transaction = client.transaction().expect("a transaction");
    for _ in 0..=random.below(3) {
        let (number, size, json) = some_batch(scene, random);
        scene.books.note(number, org, size, Fate::Aborted);
        ingest(&mut transaction, org, &json, None).unwrap_or_else(|error| panic!("{error:?}"));
    }
    transaction.rollback().expect("rollback");
}

fn partly_rolled_back(scene: &Scene, client: &mut Client, random: &mut Random, org: &str) {
    let mut transaction = client.transaction().expect("a transaction");
    let (first, first_size, json) = some_batch(scene, random);
    ingest(&mut transaction, org, &json, None).expect("the first batch");
    let mut savepoint = transaction.savepoint("s").expect("a savepoint");
    let (second, second_size, json) = some_batch(scene, random);
    scene.books.note(second, org, second_size, Fate::Aborted);
    ingest(&mut savepoint, org, &json, None).expect("the second batch");
    savepoint.rollback().expect("rollback to the savepoint");
    let (third, third_size, json) = some_batch(scene, random);
    ingest(&mut transaction, org, &json, None).expect("the third batch");
    transaction.commit().expect("commit");
    scene.books.note(first, org, first_size, Fate::Acknowledged);
    scene.books.note(third, org, third_size, Fate::Acknowledged);
}

/// Many writers take the same few keys, so that calls with one key meet.
fn with_shared_key(scene: &Scene, client: &mut Client, random: &mut Random, org: &str) {
    let (number, size, json) = some_batch(scene, random);
    let key = format!("key-{}", number / 24);
    match ingest(client, org, &json, Some(&key)) {
        // Another batch came first.
        Err(error) if sqlstate(&error) == "23000" => scene.books.note(number, org, size, Fate::Aborted),
        result => {
            acknowledge(scene, number, org, size, result);
            let again = ingest(client, org, &json, Some(&key)).expect("the same again");
            assert_eq!((again.duplicate, again.accepted as usize), (true, size), "batch {number} again");
        }
    }
}

/// Replays until the writers are done; what was acknowledged before a replay began must be in it.
fn replay(scene: &Scene, mut random: Random) -> usize {
    let mut client = scene.database.connect();
    let mut seen = 0;
    while scene.writing() {
        let org = random.pick(&ORGS);
        let acknowledged = scene.books.sent(Some(org));
        let quoted = org.replace('\'', "''");
        let source =
            format!("ts_replay('{quoted}', now() - interval '149 minutes', now() + interval '5 minutes')");
        seen += Bookkeeping::check(&mut client, &source, &acknowledged);
    }
    seen
}

/// Purges without pause and says how many chunks went.
fn purge(scene: &Scene) -> usize {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&warnings);
    let mut config = scene.database.config("postgres");
    config.notice_callback(move |notice| {
        if notice.severity() == "WARNING" {
            heard.lock().expect("warnings").push(notice.to_string());
        }
    });
    let mut client = config.connect(NoTls).expect("a connection");
    let mut dropped = 0;
    while scene.writing() {
        let chunks: i64 = one(&mut client, "SELECT sum(chunks_dropped) FROM ts_apply_retention()");
        dropped += chunks as usize;
        thread::sleep(Duration::from_millis(100));
    }
    let warnings = warnings.lock().expect("warnings");
    assert!(warnings.is_empty(), "the purge warned: {warnings:?}");
    dropped
}

/// Gives the purge work: expired rows of orgs that stay on their tier, and of some that are upgraded.
fn age(scene: &Scene) -> usize {
    let mut client = scene.database.connect();
    let mut round = 0;
    while scene.writing() {
        let sql = format!(
            "BEGIN;
             INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
             SELECT -1 - n, now() - interval '{hours} hours', org, 1, '/0/' || org || '/' || n
             FROM generate_series(1, 300) n, (VALUES ('aged'), ('aged-{round}')) o(org);
             SELECT ts_set_org_tier('aged-{round}', 'premium');
             INSERT INTO upgraded VALUES ('aged-{round}');
             COMMIT",
            hours = 5 + round % 40
        );
        client.batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?}"));
        round += 1;
        thread::sleep(Duration::from_millis(150));
    }
    round
}

#[test]
fn concurrent_calls_with_one_key_store_once() {
    const CALLS: usize = 12;
    let database = Database::new(&Server::shared("concurrency"), "keys");
    let isolations = ["READ COMMITTED", "REPEATABLE READ"];
    for (round, isolation) in isolations.into_iter().cycle().take(8).enumerate() {
        let (start, new) = (Barrier::new(CALLS), AtomicUsize::new(0));
        // Orgs register themselves in every other pair of rounds; under REPEATABLE READ that is for others to do.
        let org = if round % 4 == 0 { format!("org-{round}") } else { "org".to_owned() };
        database.connect().execute("SELECT ts_set_org_tier('org', 'standard')", &[]).expect("org");
        let json = batch(round as i64, now_micros(), &[0, 1, 2]);
        let outcomes: Vec<Ingested> = thread::scope(|scope| {
            let calls: Vec<_> = (0..CALLS)
                .map(|_| {
                    let (database, start, new, org, json) = (&database, &start, &new, &org, &json);
                    scope.spawn(move || {
                        let mut client = database.connect();
                        client
                            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1"))
                            .expect("begin");
                        start.wait();
                        let done = ingest(&mut client, org, json, Some(&format!("key-{round}")));
                        let done = done.unwrap_or_else(|error| panic!("{isolation}: {error:?}"));
                        client.batch_execute("COMMIT").expect("commit");
                        new.fetch_add(usize::from(!done.duplicate), Ordering::Relaxed);
                        done
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().expect("a call")).collect()
        });
        assert_eq!(new.into_inner(), 1, "{isolation}: {outcomes:?}");
        for done in &outcomes {
            assert_eq!((done.batch_id, done.accepted), (outcomes[0].batch_id, 3), "{isolation}");
        }
        let sql = format!("SELECT count(*) FROM tailstream.events WHERE id >> 16 = {}", outcomes[0].batch_id);
        assert_eq!(one::<i64>(&mut database.connect(), &sql), 3);
    }
    check_ledger(&mut database.connect());
    assert_eq!(one::<i64>(&mut database.connect(), "SELECT count(*) FROM tailstream.batches"), 8);
}
