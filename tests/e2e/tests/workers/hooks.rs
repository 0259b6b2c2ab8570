//! Errors that pass through our hooks are the ones that were raised, to the last field.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use postgres::{Client, NoTls};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::server_user::ServerUser;
use tailstream_devkit::{Cluster, postgres_install, repository};
use tailstream_e2e::Server;
use tailstream_e2e::database::{config, one};

/// The hook of `raising.c`, which is the one before ours, raises an error for this.
const RAISED: &str = "SELECT 1 /* raise */";
/// The same inside of other things, and errors of others.
const WRONG: &[&str] = &[
    RAISED,
    "DO $$BEGIN EXECUTE 'SELECT 1 /* raise */'; END$$",
    "PREPARE p AS SELECT 1 /* raise */",
    // Of TimescaleDB's hook, in a session that uses it already.
    "ALTER EXTENSION timescaledb UPDATE",
    // Of PostgreSQL: while the query is analyzed and run, and by a utility command.
    "SELECT nothing FROM pg_class",
    "SELECT 1 / (oid::int - oid::int) FROM pg_class",
    "DO $$BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'TS042', DETAIL = 'd', HINT = 'h', COLUMN = 'c', TABLE = 't'; END$$",
    "COPY pg_class FROM '/nonexistent'",
];

/// Builds the library where the server's user can read it.
fn library() -> String {
    let clusters = repository::clusters_dir(&ServerUser::detect().expect("a user")).expect("a directory");
    let dir = clusters.join("raising-library");
    fs::create_dir_all(&dir).expect("a directory");
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("its mode");
    let headers = postgres_install::ask_pg_config("--includedir-server").expect("pg_config");
    let library = dir.join("raising.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-I", &headers, "-o"])
        .arg(&library)
        .arg(repository::root().expect("the repository").join("tests/e2e/tests/workers/raising.c"))
        .output()
        .expect("a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library.to_str().expect("a path").to_owned()
}

fn server(name: &str, libraries: &[&str]) -> Cluster {
    let cluster = Server::create(name, |builder| builder.preload(libraries));
    cluster.create_database("app").expect("a database");
    connect(&cluster).batch_execute("CREATE EXTENSION timescaledb").expect("TimescaleDB");
    cluster
}

fn connect(cluster: &Cluster) -> Client {
    let mut client = config(cluster, "app", SUPERUSER).connect(NoTls).expect("a connection");
    // Has TimescaleDB loaded, if it is there.
    client.batch_execute("SELECT 1 FROM pg_extension").expect("a query");
    client
}

/// Everything that an error says.
fn error(client: &mut Client, sql: &str) -> String {
    format!("{:?}", client.simple_query(sql).expect_err(sql).as_db_error())
}

fn errors(client: &mut Client) -> Vec<String> {
    WRONG.iter().map(|sql| error(client, sql)).collect()
}

#[test]
fn errors_through_the_hooks_say_what_they_say_without_us() {
    let library = library();
    let without = server("hooks_without", &["timescaledb", &library]);
    let with = server("hooks_with", &["timescaledb", &library, "tailstream"]);
    let (mut client, mut plain) = (connect(&with), connect(&without));
    let expected = errors(&mut plain);
    for field in
        ["ZZ042", "raised in a hook", "the detail", "the hint", "the context", "a column", "Original(10)"]
    {
        assert!(expected[0].contains(field), "{field}: {}", expected[0]);
    }
    assert_eq!(errors(&mut client), expected);
    // Thousands of times in one session, caught and not, and in a bound one.
    client
        .batch_execute("CREATE EXTENSION tailstream; SET tailstream.org = 'acme'")
        .expect("a bound session");
    let caught = format!(
        "DO $do$DECLARE n integer := 0; BEGIN
             FOR i IN 1..2000 LOOP
                 BEGIN EXECUTE '{RAISED}'; EXCEPTION WHEN SQLSTATE 'ZZ042' THEN n := n + 1; END;
                 PERFORM count(*) FROM tailstream.log_events;
             END LOOP;
             IF n <> 2000 THEN RAISE EXCEPTION '% errors', n; END IF;
         END$do$"
    );
    client.batch_execute(&caught).expect("errors that are caught");
    for _ in 0..1_000 {
        assert_eq!(error(&mut client, RAISED), expected[0]);
    }
    assert_eq!(errors(&mut client), expected);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM tailstream.log_events"), 0);
}
