//! The order outlives crashes and moves to other servers.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::{Cluster, postgres_install};
use tailstream_e2e::database::{config, ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, soon_placed, wait_until_all_placed};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Random, Server, budget, eventually};

const LONG: Duration = Duration::from_secs(30);

fn server(name: &str) -> Cluster {
    Server::create(name, |builder| builder.preload(&PRELOAD).setting("tailstream.databases", "app"))
}

fn connect(cluster: &Cluster) -> Client {
    config(cluster, "app", SUPERUSER).connect(NoTls).expect("a connection")
}

#[test]
fn a_crash_neither_loses_a_place_nor_gives_two() {
    let mut random = Random::new("sequencer crash");
    let mut cluster = server("sequencer-crash");
    cluster.create_database("app").expect("a database");
    connect(&cluster).batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    let until = Instant::now() + budget(8.0);
    let mut rounds = 0;
    while Instant::now() < until || rounds < 3 {
        let stored = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = connect(&cluster);
                    while ingest(&mut client, "acme", &some_events(2), None).is_ok() {
                        stored.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            eventually("the writers to write", LONG, || (stored.load(Ordering::Relaxed) > 20).then_some(()));
            // Not a synchronisation: the crash shall come at any moment.
            thread::sleep(Duration::from_millis(random.between(0, 400) as u64));
            cluster.kill9().expect("kill -9");
        });
        cluster.start().expect("the server after a crash");
        let mut client = connect(&cluster);
        wait_until_all_placed(&mut client, LONG);
        check_positions(&mut client);
        rounds += 1;
    }
    println!("{rounds} crashes");
}

#[test]
fn a_restored_dump_goes_on_with_the_order_it_had() {
    let source = server("sequencer-dumped");
    source.create_database("app").expect("a database");
    let mut client = connect(&source);
    client.batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    for _ in 0..50 {
        ingest(&mut client, "acme", &some_events(3), None).expect("ingest");
    }
    wait_until_all_placed(&mut client, LONG);
    // Two batches that the dump has and whose places it has not.
    client.batch_execute("ALTER SYSTEM SET tailstream.databases = ''").expect("ALTER SYSTEM");
    client.batch_execute("SELECT pg_reload_conf()").expect("a reload");
    eventually("the sequencer to be gone", LONG, || {
        let gone =
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'tailstream sequencer%'";
        one::<bool>(&mut client, gone).then_some(())
    });
    for _ in 0..2 {
        ingest(&mut client, "acme", &some_events(1), None).expect("ingest");
    }
    let order = "SELECT array_agg(batch_id ORDER BY seq) FROM tailstream.positions";
    let before: Vec<i64> = one(&mut client, order);
    assert_eq!(before.len(), 50);
    let file = source.dir().join("dump");
    let file = file.to_str().expect("a path");
    run(&source, "pg_dump", &["-Fc", "-f", file, "app"]);

    let target = server("sequencer-restored");
    target.create_database("app").expect("a database");
    let mut client = connect(&target);
    // The new server's transaction ids are behind those in the dump, or ahead of them: here they go past them.
    client
        .batch_execute("CREATE EXTENSION timescaledb; SELECT timescaledb_pre_restore()")
        .expect("before the restore");
    run(&target, "pg_restore", &["--exit-on-error", "-d", "app", file]);
    let mut client = connect(&target);
    client.batch_execute("SELECT timescaledb_post_restore()").expect("after the restore");
    let mut client = connect(&target);
    client.batch_execute("SELECT tailstream.attach_storage()").expect("attach_storage");
    let mut new = Vec::new();
    for _ in 0..3_000 {
        let done = ingest(&mut client, "acme", "{}", None).expect("ingest");
        new.push(done.batch_id);
    }
    soon_placed(&mut client, new[2_999]);
    wait_until_all_placed(&mut client, LONG);
    check_positions(&mut client);
    let after: Vec<i64> = one(&mut client, order);
    assert_eq!(after[..50], before, "what had its place keeps it");
    assert_eq!(after[52..], new);
}

fn run(cluster: &Cluster, program: &str, arguments: &[&str]) {
    let output = Command::new(postgres_install::program(program))
        .args(cluster.psql_args())
        .args(arguments)
        .output()
        .expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
