//! What ends a wait: its time, whoever cancels it, the end of the session or of the server.

use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::postgres_install;
use tailstream_e2e::cursor::{fetch, fetched, labels, store};
use tailstream_e2e::database::{column, config, one};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server, eventually, refused, sqlstate};

use crate::{LONG, ORDERS, create, database, pid, run, store_placed, wait_until_idle};

/// What comes at once, on a busy machine; far less than the time that the fetches here would wait.
const AT_ONCE: Duration = Duration::from_secs(5);
const WAIT: &str = "'c', timeout => '50 s', auto_ack => true";

/// How a fetch ends that waits when `end` happens, and how long after that.
fn ended(mut waiter: Client, mut client: Client, end: impl FnOnce(&mut Client, i32)) -> (String, Duration) {
    let waiting = pid(&mut waiter);
    thread::scope(|scope| {
        let fetch = scope.spawn(move || (fetch(&mut waiter, WAIT), Instant::now()));
        wait_until_idle(&mut client, waiting);
        let began = Instant::now();
        end(&mut client, waiting);
        let (result, returned) = fetch.join().expect("the fetch that waits");
        let took = returned.saturating_duration_since(began);
        (result.map_or_else(|error| sqlstate(&error), |rows| format!("{} rows", rows.len())), took)
    })
}

#[test]
fn a_wait_without_events_ends_after_its_time() {
    let database = database("empty_wait");
    let mut client = database.connect();
    for order in ORDERS {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        for (timeout, least) in
            [("'300 ms'", 300), ("'0'", 0), ("'1 ms'", 1), ("NULL", 0), ("'0.2 seconds'", 200)]
        {
            let began = Instant::now();
            assert_eq!(fetched(&mut client, &format!("'{order}', timeout => {timeout}")), []);
            let took = began.elapsed();
            let most = Duration::from_millis(least) + AT_ONCE;
            assert!((Duration::from_millis(least)..most).contains(&took), "{order}, {timeout}: {took:?}");
        }
    }
    // What is there comes without a wait, however little of what was asked for.
    store_placed(&mut client, "acme", &[("a", 0)]);
    for order in ORDERS {
        let began = Instant::now();
        assert_eq!(fetched(&mut client, &format!("'{order}', 1000, timeout => '1 hour'")).len(), 1);
        assert!(began.elapsed() < AT_ONCE);
    }
}

#[test]
fn a_wait_can_be_cancelled_and_leaves_nothing() {
    let database = database("cancelled");
    let mut client = database.connect();
    create(&mut client, "'c', 'acme'");
    let check_free = |database: &Database| {
        let mut client = database.connect();
        eventually("the cursor to be free again", LONG, || fetch(&mut client, "'c', nowait => true").ok());
    };
    let with_timeout = || {
        let mut waiter = database.connect();
        waiter.batch_execute("SET statement_timeout = '1500 ms'").expect("statement_timeout");
        waiter
    };
    let cancel = |client: &mut Client, waiting: i32| run(client, &format!("pg_cancel_backend({waiting})"));
    let (end, took) = ended(database.connect(), database.connect(), cancel);
    assert!(end == "57014" && took < AT_ONCE, "pg_cancel_backend: {end} after {took:?}");
    check_free(&database);
    let (end, took) = ended(with_timeout(), database.connect(), |_, _| ());
    assert!(end == "57014" && took < AT_ONCE, "statement_timeout: {end} after {took:?}");
    check_free(&database);
    let waiter = database.connect();
    let token = waiter.cancel_token();
    let (end, took) = ended(waiter, database.connect(), |_, _| token.cancel_query(NoTls).expect("a cancel"));
    assert!(end == "57014" && took < AT_ONCE, "a client's cancel: {end} after {took:?}");
    check_free(&database);
    let mut gone = 0;
    let terminate = |client: &mut Client, waiting: i32| {
        gone = waiting;
        run(client, &format!("pg_terminate_backend({waiting})"));
    };
    let (end, took) = ended(database.connect(), database.connect(), terminate);
    let ended = end == "57P01" || end.starts_with("no SQLSTATE");
    assert!(ended && took < AT_ONCE, "pg_terminate_backend: {end} after {took:?}");
    check_free(&database);
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {gone}");
    eventually("the session to be gone", LONG, || (one::<i64>(&mut client, &there) == 0).then_some(()));
    store_placed(&mut client, "acme", &[("a", 0)]);
    assert_eq!(labels(&fetched(&mut client, "'c'")), ["a"], "nothing was passed over");
}

/// A client that waits in a fetch, and its session.
fn waiting_psql(database: &Database, client: &mut Client, options: &[&str]) -> (Child, i32) {
    let wait = format!("SELECT * FROM ts_cursor_fetch({WAIT})");
    let psql = Command::new(postgres_install::program("psql"))
        .args(database.cluster.psql_args())
        .args(["-d", &database.name])
        .args(options)
        .args(["-c", &wait])
        .env("PGPASSWORD", "secret")
        .spawn()
        .expect("psql");
    let found =
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'psql' AND query LIKE '%ts_cursor_fetch%'
                 AND datname = current_database()";
    let waiting = eventually("psql to fetch", LONG, || column(client, found).pop());
    wait_until_idle(client, waiting);
    (psql, waiting)
}

#[test]
fn a_wait_ends_with_its_client() {
    let database = database("abandoned");
    let mut client = database.connect();
    create(&mut client, "'c', 'acme'");
    let role = database.login_role("reader", &["tailstream_reader"]);
    client.batch_execute(&format!("ALTER ROLE {role} PASSWORD 'secret'")).expect("a password");
    let tcp = ["-h", "127.0.0.1", "-U", &role];
    for options in [&[][..], &tcp, &["-c", "SET client_connection_check_interval = '50ms'"]] {
        let (mut psql, _) = waiting_psql(&database, &mut client, options);
        psql.kill().expect("SIGKILL");
        psql.wait().expect("its end");
        let began = Instant::now();
        eventually("the cursor to be free again", LONG, || fetch(&mut client, "'c', nowait => true").ok());
        let took = began.elapsed();
        assert!(took < AT_ONCE, "{options:?}: a dead client's wait went on for {took:?}");
    }
}

#[test]
fn nothing_is_acknowledged_for_a_client_that_is_gone() {
    let database = database("unheard");
    let mut client = database.connect();
    create(&mut client, "'c', 'acme'");
    let (mut psql, waiting) = waiting_psql(&database, &mut client, &[]);
    psql.kill().expect("SIGKILL");
    psql.wait().expect("its end");
    // It is rung for before it looks after its client again.
    store_placed(&mut client, "acme", &[("a", 0)]);
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {waiting}");
    eventually("the session to be gone", LONG, || (one::<i64>(&mut client, &there) == 0).then_some(()));
    assert_eq!(labels(&fetched(&mut client, "'c'")), ["a"], "nobody has got it");
    let lost = "connection to client is lost";
    assert!(database.cluster.log_tail(200).contains(lost), "the log does not say why");
}

#[test]
fn a_cancelled_wait_is_undone_to_its_savepoint() {
    let database = database("resumed");
    let (mut waiter, mut client) = (database.connect(), database.connect());
    store_placed(&mut client, "acme", &[("a", 0)]);
    create(&mut client, "'c', 'acme'");
    waiter.batch_execute("SET statement_timeout = '500 ms'").expect("statement_timeout");
    let mut transaction = waiter.transaction().expect("a transaction");
    assert_eq!(labels(&fetched(&mut transaction, WAIT)), ["a"]);
    let mut part = transaction.savepoint("part").expect("a savepoint");
    refused("a wait for too long", fetch(&mut part, WAIT), &["57014"]);
    part.rollback().expect("ROLLBACK TO");
    transaction.batch_execute("SET LOCAL statement_timeout = 0").expect("statement_timeout");
    store_placed(&mut client, "acme", &[("b", 0)]);
    assert_eq!(labels(&fetched(&mut transaction, WAIT)), ["b"]);
    transaction.commit().expect("commit");
    assert_eq!(fetched(&mut client, "'c'"), []);
}

#[test]
fn a_wait_survives_the_sequencer() {
    let database = database("sequencer_gone");
    let mut client = database.connect();
    create(&mut client, "'c', 'acme'");
    let (end, _) = ended(database.connect(), database.connect(), |client, waiting| {
        let stop = "SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity
                    WHERE backend_type = 'tailstream sequencer' AND datname = current_database()";
        assert!(one::<bool>(client, stop), "the sequencer ends");
        wait_until_idle(client, waiting);
        store(client, "acme", &[("a", 0), ("b", 0)]);
    });
    assert_eq!(end, "2 rows");
}

#[test]
fn the_server_stops_at_once_though_somebody_waits() {
    let cluster = Server::create("cursors-stop", |builder| {
        builder.preload(&PRELOAD).setting("tailstream.databases", "app")
    });
    cluster.create_database("app").expect("a database");
    let connect = || config(&cluster, "app", SUPERUSER).connect(NoTls).expect("a connection");
    let mut client = connect();
    client.batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    store_placed(&mut client, "acme", &[("a", 0)]);
    create(&mut client, "'c', 'acme', 'now'");
    let (end, took) = ended(connect(), client, |_, _| cluster.stop().expect("a fast shutdown"));
    // Whether the client still hears why is a matter of moments.
    let gone = end == "57P01" || end.starts_with("no SQLSTATE");
    assert!(gone && took < AT_ONCE, "a fast shutdown: {end} after {took:?}");
}
