//! Settings that promise something about stored data have one value for the whole server.

use std::sync::{Mutex, MutexGuard, PoisonError};

use postgres::{Client, NoTls};
use tailstream_e2e::database::{ingest, one, set_for_server};
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server, refused, sqlstate};

const EVENT: &str = "[{}]";
/// Each with a value that is not its default.
const PROMISES: [(&str, &str); 5] = [
    ("tailstream.idempotency_window", "7d"),
    ("tailstream.cursor_ttl", "1d"),
    ("tailstream.rejected_retention", "1d"),
    ("tailstream.max_future_skew", "1h"),
    ("tailstream.max_cursors_per_org", "7"),
];

/// Tests that set what holds for the whole server run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A database; that of keys has a sequencer, without which the ledger is kept.
fn database(name: &str) -> Database {
    let server = Server::shared_with("settings", |builder| {
        builder.preload(&PRELOAD).setting("tailstream.databases", "keys")
    });
    Database::new(&server, name)
}

fn purge(client: &mut Client) {
    client.execute("SELECT * FROM ts_apply_retention()", &[]).expect("the purge");
}

/// A batch of this key as if it had been stored then.
fn old_batch(client: &mut Client, key: &str, age: &str) {
    let sql = format!(
        "INSERT INTO tailstream.batches (batch_id, received_at, xid, org_id, tier, event_count, idempotency_key, accepted, rejected, expired)
         SELECT -1, now() - interval '{age}', '3', 'acme', 1, 0, '{key}', 1, 0, 0"
    );
    client.execute(&sql, &[]).expect("an old batch");
}

#[test]
fn no_session_role_or_database_has_a_promise_of_its_own() {
    let database = database("promises");
    let role = database.login_role("rich", &["tailstream_admin"]);
    let mut client = database.connect();
    for (setting, value) in PROMISES {
        client.batch_execute(&format!("GRANT SET ON PARAMETER {setting} TO {role}")).expect("a grant");
        for user in [tailstream_devkit::cluster::SUPERUSER, &role] {
            let mut session = database.connect_as(user);
            for statement in [
                format!("SET {setting} = '{value}'"),
                format!("SET LOCAL {setting} = '{value}'"),
                format!("SELECT set_config('{setting}', '{value}', false)"),
                format!("ALTER ROLE {role} SET {setting} = '{value}'"),
                format!("ALTER DATABASE {} SET {setting} = '{value}'", database.name),
                format!(
                    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET {setting} = '{value}' AS 'SELECT 1'"
                ),
            ] {
                refused(&statement, session.batch_execute(&statement), &["55P02", "42501"]);
            }
        }
        let connected = database.config(&role).options(&format!("-c {setting}={value}")).connect(NoTls);
        assert_eq!(connected.err().map(|error| sqlstate(&error)).as_deref(), Some("55P02"), "{setting}");
        client.batch_execute(&format!("REVOKE SET ON PARAMETER {setting} FROM {role}")).expect("a revoke");
    }
}

#[test]
fn the_purge_keeps_what_a_producers_key_needs() {
    let _alone = alone();
    let database = database("keys");
    let [producer, admin] =
        ["writer", "admin"].map(|role| database.login_role(role, &[&format!("tailstream_{role}")]));
    let mut client = database.connect();
    // What was possible: a window of the producer's own, which the purge does not know.
    let own = format!("ALTER ROLE {producer} SET tailstream.idempotency_window = '7d'");
    if client.batch_execute(&own).is_err() {
        set_for_server(&mut client, "tailstream.idempotency_window", "7d");
    }
    let now = ingest(&mut client, "acme", EVENT, None).expect("an org").batch_id;
    client.batch_execute("SELECT pg_reload_conf()").expect("a launcher that looks");
    soon_placed(&mut client, now);
    old_batch(&mut client, "key", "3 days");
    let mut producer = database.connect_as(&producer);
    let mut admin = database.connect_as(&admin);
    assert_eq!(one::<String>(&mut producer, "SHOW tailstream.idempotency_window"), "7d");
    purge(&mut admin);
    let again = ingest(&mut producer, "acme", EVENT, Some("key")).expect("the batch once more");
    assert!(again.duplicate, "stored twice: {again:?}");
    set_for_server(&mut client, "tailstream.idempotency_window", "1d");
    drop((producer, admin));
    let again = ingest(&mut database.connect(), "acme", EVENT, Some("key")).expect("the batch once more");
    assert!(!again.duplicate, "the window is over: {again:?}");
}

#[test]
fn a_window_of_nothing_remembers_no_key() {
    let _alone = alone();
    let database = database("no_window");
    let mut client = database.connect();
    ingest(&mut client, "acme", EVENT, Some("key")).expect("a batch");
    assert!(ingest(&mut client, "acme", EVENT, Some("key")).expect("the same").duplicate);
    set_for_server(&mut client, "tailstream.idempotency_window", "0");
    assert!(!ingest(&mut client, "acme", EVENT, Some("key")).expect("the same").duplicate);
    set_for_server(&mut client, "tailstream.idempotency_window", "1d");
}
