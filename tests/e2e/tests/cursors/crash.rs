//! `kill -9` of the whole server amid the consuming: the position is what was committed, exactly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tailstream_devkit::Cluster;
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_e2e::cursor::{arrival_order, fetched, ids, labels, store};
use tailstream_e2e::database::{column, config, ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, soon_placed, wait_until_all_placed};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Random, Server, budget, eventually};

use crate::{LONG, ORDERS, create};

pub fn server(name: &str) -> Cluster {
    let cluster =
        Server::create(name, |builder| builder.preload(&PRELOAD).setting("tailstream.databases", "app"));
    cluster.create_database("app").expect("a database");
    connect(&cluster).batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    cluster
}

pub fn connect(cluster: &Cluster) -> Client {
    config(cluster, "app", SUPERUSER).connect(NoTls).expect("a connection")
}

#[test]
fn a_crash_before_the_commit_keeps_the_position_and_one_after_it_has_moved_it() {
    let mut cluster = server("cursors-crash");
    let mut client = connect(&cluster);
    for order in ORDERS {
        let batch = store(&mut client, order, &[("a", 50), ("b", 40), ("c", 30), ("d", 20), ("e", 10)]);
        soon_placed(&mut client, batch);
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
    }
    for (commit, expected) in [("", "a"), ("COMMIT", "c"), ("", "c"), ("COMMIT", "e")] {
        let mut client = connect(&cluster);
        client.batch_execute("BEGIN").expect("begin");
        for order in ORDERS {
            let rows = fetched(&mut client, &format!("'{order}', 2, auto_ack => true"));
            assert_eq!(rows.len(), 2);
        }
        client.batch_execute(commit).expect("the end of the transaction");
        cluster.kill9().expect("kill -9");
        cluster.start().expect("the server after a crash");
        let mut client = connect(&cluster);
        for order in ORDERS {
            // Whoever held it is dead, and so is its lock.
            let rows = fetched(&mut client, &format!("'{order}', 1, nowait => true"));
            assert_eq!(labels(&rows), [expected], "{order} after {commit:?}");
            let lag = format!("SELECT lag_events FROM tailstream.cursors WHERE name = '{order}'");
            let behind = i64::from(b'e' - expected.as_bytes()[0]) + 1;
            assert_eq!(one::<i64>(&mut client, &lag), behind, "{order}");
        }
    }
}

#[test]
fn whatever_the_moment_of_a_crash_every_event_is_consumed_once() {
    let mut random = Random::new("cursor crash");
    let mut cluster = server("cursors-crashes");
    let mut client = connect(&cluster);
    client
        .batch_execute("CREATE TABLE results (number bigserial, id bigint NOT NULL, kind text NOT NULL)")
        .expect("a table of results");
    create(&mut client, "'c', 'acme'");
    let until = Instant::now() + budget(6.0);
    let mut rounds = 0;
    while Instant::now() < until || rounds < 3 {
        crash(&cluster, random.between(0, 300) as u64);
        cluster.start().expect("the server after a crash");
        let mut client = connect(&cluster);
        wait_until_all_placed(&mut client, LONG);
        let expected = arrival_order(&mut client, "acme");
        let consumed: Vec<i64> = column(&mut client, "SELECT id FROM results ORDER BY number");
        assert!(
            expected.starts_with(&consumed),
            "round {rounds}: consumed in another order, twice or not at all"
        );
        // What comes next is what nobody wrote down.
        let next = fetched(&mut client, "'c', 1");
        assert_eq!(ids(&next).first(), expected.get(consumed.len()), "round {rounds}");
        rounds += 1;
    }
    let mut client = connect(&cluster);
    while consume(&mut client).expect("the rest") > 0 {}
    check_positions(&mut client);
    let consumed: Vec<i64> = column(&mut client, "SELECT id FROM results ORDER BY number");
    assert_eq!(consumed, arrival_order(&mut client, "acme"));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM results WHERE kind <> 'event'"), 0);
    println!("{rounds} crashes, {} events", consumed.len());
    assert!(consumed.len() > 100, "hardly anything was consumed");
}

fn consume(client: &mut Client) -> Result<u64, postgres::Error> {
    let sql = "INSERT INTO results (id, kind) SELECT id, kind FROM ts_cursor_fetch('c', 3, auto_ack => true, timeout => '10 ms')";
    client.execute(sql, &[])
}

/// Two writers write and two consumers consume until the server is killed under them.
fn crash(cluster: &Cluster, millis: u64) {
    let consumed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = connect(cluster);
                while ingest(&mut client, "acme", &some_events(2), None).is_ok() {}
            });
            scope.spawn(|| {
                let mut client = connect(cluster);
                while consume(&mut client).is_ok() {
                    consumed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // In a thread, so that the others end even if this fails.
        let consuming = scope.spawn(|| {
            eventually("the consumers to consume", LONG, || {
                (consumed.load(Ordering::Relaxed) > 20).then_some(())
            });
        });
        let consuming = consuming.join();
        // Not a synchronisation: the crash shall come at any moment.
        thread::sleep(Duration::from_millis(millis));
        cluster.kill9().expect("kill -9");
        assert!(consuming.is_ok(), "the consumers do not consume");
    });
}
