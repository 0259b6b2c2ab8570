//! A fresh database with the extension, and what tests do in it all the time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postgres::{Client, Config, GenericClient, NoTls};
use tailstream_devkit::Cluster;
use tailstream_devkit::cluster::SUPERUSER;

use crate::{Server, eventually};

/// What `ts_ingest` says of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingested {
    pub batch_id: i64,
    pub accepted: i32,
    pub rejected: i32,
    pub expired: i32,
    pub duplicate: bool,
}

/// A database of one test, dropped with the value.
#[derive(Debug)]
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

/// Two sessions that register the same roles at once would disturb each other.
static CREATING: Mutex<()> = Mutex::new(());

impl Database {
    /// Empty but for the extension.
    pub fn new(server: &Server, name: &str) -> Self {
        let database = Self::empty(server, name);
        database.create_extension();
        database
    }

    pub fn empty(server: &Server, name: &str) -> Self {
        let _alone = CREATING.lock();
        server.cluster.create_database(name).expect("a database");
        Self { cluster: Arc::clone(&server.cluster), name: name.to_owned() }
    }

    pub fn create_extension(&self) {
        let _alone = CREATING.lock();
        self.connect()
            .batch_execute("CREATE EXTENSION tailstream CASCADE")
            .expect("CREATE EXTENSION tailstream");
    }

    pub fn connect(&self) -> Client {
        self.config(SUPERUSER).connect(NoTls).expect("a connection")
    }

    pub fn connect_as(&self, role: &str) -> Client {
        self.config(role).connect(NoTls).expect("a connection")
    }

    /// For connections with options of their own.
    pub fn config(&self, role: &str) -> Config {
        config(&self.cluster, &self.name, role)
    }

    /// A role that may log in, named after this database because roles belong to the whole server.
    pub fn login_role(&self, name: &str, member_of: &[&str]) -> String {
        let role = format!("{}_{name}", self.name);
        let mut client = self.connect();
        client.batch_execute(&format!("CREATE ROLE {role} LOGIN")).expect("a role");
        for group in member_of {
            let grant = format!("GRANT {group} TO {role}");
            client.batch_execute(&grant).expect("membership");
        }
        role
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.cluster.drop_database(&self.name).expect("the database dropped");
        let roles = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1)";
        let prefix = format!("{}_", self.name);
        let mut client = self.cluster.connect("postgres").expect("a connection");
        for row in client.query(roles, &[&prefix]).expect("the test's roles") {
            let role: String = row.get(0);
            client.batch_execute(&format!("DROP ROLE {role}")).expect("the role dropped");
        }
    }
}

/// A connection that gives up on a server that does not answer.
pub fn config(cluster: &Cluster, database: &str, role: &str) -> Config {
    let mut config = Config::new();
    config
        .host_path(cluster.socket_dir())
        .port(cluster.port())
        .user(role)
        .dbname(database)
        .connect_timeout(Duration::from_secs(30))
        .application_name("tailstream-e2e");
    config
}

/// `ts_ingest` with all that it takes.
pub fn ingest(
    client: &mut impl GenericClient,
    org: &str,
    events: &str,
    key: Option<&str>,
) -> Result<Ingested, postgres::Error> {
    let row = client.query_one(
        "SELECT batch_id, accepted, rejected, expired, duplicate FROM ts_ingest($1, $2::text::json, $3)",
        &[&org, &events, &key],
    )?;
    Ok(Ingested {
        batch_id: row.get(0),
        accepted: row.get(1),
        rejected: row.get(2),
        expired: row.get(3),
        duplicate: row.get(4),
    })
}

/// The single value of a query without arguments.
#[track_caller]
pub fn one<T: for<'a> postgres::types::FromSql<'a>>(client: &mut impl GenericClient, sql: &str) -> T {
    match client.query_one(sql, &[]) {
        Ok(row) => row.get(0),
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

/// The first column of a query without arguments.
#[track_caller]
pub fn column<T: for<'a> postgres::types::FromSql<'a>>(client: &mut impl GenericClient, sql: &str) -> Vec<T> {
    match client.query(sql, &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

/// ALTER SYSTEM and a reload; returns when this session has the new value.
#[track_caller]
pub fn set_for_server(client: &mut Client, setting: &str, value: &str) {
    const LOADED: &str = "SELECT pg_conf_load_time()::text";
    let before: String = one(client, LOADED);
    client.batch_execute(&format!("ALTER SYSTEM SET {setting} = '{value}'")).expect("ALTER SYSTEM");
    client.batch_execute("SELECT pg_reload_conf()").expect("a reload");
    eventually("the reload", Duration::from_secs(30), || {
        (one::<String>(client, LOADED) != before).then_some(())
    });
}

/// The process of a session.
pub fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// Waits until a session waits for another one.
#[track_caller]
pub fn wait_until_blocked(client: &mut Client, waiter: i32, holder: i32) {
    let sql = format!("SELECT {holder} = ANY (pg_blocking_pids({waiter}))");
    eventually(&format!("session {waiter} to wait for {holder}"), Duration::from_secs(30), || {
        one::<bool>(client, &sql).then_some(())
    });
}
