//! `kill -9` of the whole server in the middle of ingest, again and again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use tailstream_devkit::Cluster;
use tailstream_devkit::event::now_micros;
use tailstream_e2e::bookkeeping::{Bookkeeping, Fate, Sent, batch, check_ledger};
use tailstream_e2e::database::{config, ingest, one};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Random, Server, budget, eventually};

const WRITERS: u64 = 6;
const ORGS: [&str; 3] = ["acme", "globex", "initech"];
const DATABASE: &str = "crash";

#[test]
fn acknowledged_batches_survive_whole_and_no_batch_is_half() {
    let mut random = Random::new("crash");
    let mut cluster = Server::create("crash", |builder| {
        // Checkpoints amid the writing make recovery start in the middle of things.
        builder.preload(&PRELOAD).setting("checkpoint_timeout", "30s").setting("max_wal_size", "64MB")
    });
    cluster.create_database(DATABASE).expect("a database");
    connect(&cluster).batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    let books = Bookkeeping::default();
    let until = Instant::now() + budget(25.0);
    let mut rounds = 0;
    while Instant::now() < until || rounds < 3 {
        let in_flight = crash(&cluster, &books, &random.fork(rounds), random.between(50, 700));
        cluster.start().expect("the server after a crash");
        let mut client = connect(&cluster);
        Bookkeeping::check(&mut client, "tailstream.events", &books.sent(None));
        check_ledger(&mut client);
        send_again(&mut client, &books, in_flight);
        rounds += 1;
    }
    let mut client = connect(&cluster);
    let sent = books.sent(None);
    let found = Bookkeeping::check(&mut client, "tailstream.events", &sent);
    check_ledger(&mut client);
    let reused: i64 = one(
        &mut client,
        "SELECT count(*) FROM (SELECT FROM tailstream.batches GROUP BY batch_id HAVING count(*) > 1) twice",
    );
    assert_eq!(reused, 0, "batch ids were given twice");
    let orgs: i64 = one(&mut client, "SELECT count(*) FROM tailstream.orgs");
    assert_eq!(orgs, ORGS.len() as i64);
    println!("{rounds} crashes, {found} batches stored of {} sent", sent.len());
    let interrupted = sent.values().filter(|sent| sent.fate == Fate::Unknown).count();
    assert_eq!(interrupted, 0, "every interrupted batch was sent again");
    assert!(books.count(Fate::Acknowledged) > 50, "hardly anything was written");
}

/// A batch whose call never got its answer, with the key to send it again.
struct InFlight {
    number: i64,
    org: &'static str,
    size: usize,
    json: String,
    key: Option<String>,
}

/// Writers write until the server is killed under them. Returns the batches without an answer.
fn crash(cluster: &Cluster, books: &Bookkeeping, random: &Random, millis: i64) -> Vec<InFlight> {
    let acknowledged = AtomicUsize::new(0);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (random, acknowledged) = (random.fork(number), &acknowledged);
                scope.spawn(move || write_until_dead(cluster, books, random, acknowledged))
            })
            .collect();
        eventually("the writers to write", Duration::from_secs(30), || {
            (acknowledged.load(Ordering::Relaxed) > 10).then_some(())
        });
        // Not a synchronisation: the crash shall come at any moment.
        thread::sleep(Duration::from_millis(millis as u64));
        kill(cluster, millis % 2 == 0);
        writers.into_iter().filter_map(|writer| writer.join().expect("a writer")).collect()
    })
}

/// Kills the postmaster, whose children end by themselves when they notice, or all of them at once.
fn kill(cluster: &Cluster, all_at_once: bool) {
    let postmaster = cluster.postmaster().expect("a running server");
    if all_at_once {
        // A stopped postmaster starts nothing new while its children die.
        postmaster.signal(Signal::SIGSTOP).expect("SIGSTOP");
        for child in postmaster.children().expect("its children") {
            child.signal(Signal::SIGKILL).expect("SIGKILL");
        }
    }
    cluster.kill9().expect("kill -9");
}

fn write_until_dead(
    cluster: &Cluster,
    books: &Bookkeeping,
    mut random: Random,
    acknowledged: &AtomicUsize,
) -> Option<InFlight> {
    let mut client = connect(cluster);
    let lane = random.pick(&["direct", "executor"]);
    client.batch_execute(&format!("SET tailstream.ingest_lane = {lane}")).expect("lane");
    loop {
        let size = [1, 10, 400, 3_000][random.below(4)];
        let ages: Vec<i64> = (0..size).map(|_| random.between(0, 7_000_000_000)).collect();
        let (number, org) = (books.number(), ORGS[random.below(ORGS.len())]);
        let json = batch(number, now_micros(), &ages);
        let key = random.chance(50).then(|| format!("key-{number}"));
        books.note(number, org, size, Fate::Unknown);
        match ingest(&mut client, org, &json, key.as_deref()) {
            Ok(done) => {
                assert_eq!((done.accepted as usize, done.expired), (size, 0), "batch {number}");
                books.note(number, org, size, Fate::Acknowledged);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let gone = error.code().is_none_or(|code| *code == SqlState::ADMIN_SHUTDOWN);
                assert!(gone, "batch {number}: {error:?}");
                return Some(InFlight { number, org, size, json, key });
            }
        }
    }
}

/// What a client does after a crash: batches with a key are sent again, and must then be there once.
fn send_again(client: &mut Client, books: &Bookkeeping, in_flight: Vec<InFlight>) {
    assert_eq!(in_flight.len(), WRITERS as usize);
    for batch in in_flight {
        let stored_sql =
            format!("SELECT count(*) FROM tailstream.events WHERE path LIKE '/{}/%'", batch.number);
        let stored: i64 = one(client, &stored_sql);
        let fate = match &batch.key {
            Some(key) => {
                let done = ingest(client, batch.org, &batch.json, Some(key)).expect("sent again");
                assert_eq!(done.duplicate, stored > 0, "batch {} with key {key}", batch.number);
                Fate::Acknowledged
            }
            None if stored > 0 => Fate::Acknowledged,
            None => Fate::Aborted,
        };
        books.note(batch.number, batch.org, batch.size, fate);
        let sent = Sent { org: batch.org.to_owned(), events: batch.size as i64, fate };
        let one_batch = [(batch.number, sent)].into_iter().collect();
        let source = format!("tailstream.events WHERE path LIKE '/{}/%'", batch.number);
        Bookkeeping::check(client, &source, &one_batch);
    }
}

fn connect(cluster: &Cluster) -> Client {
    config(cluster, DATABASE, "postgres").connect(NoTls).expect("a connection")
}
