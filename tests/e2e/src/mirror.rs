//! A database whose events are mirrored, seen from both sides.

use std::fs;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::event::now_micros;
use tailstream_devkit::{Cluster, ClusterBuilder, Redis, RedisBuilder};

use crate::bookkeeping::batch;
use crate::database::{config, ingest, one};
use crate::server::PRELOAD;
use crate::stream::{self, Entry, difference};
use crate::{Server, eventually};

/// Longer than the longest pause between two attempts, twice over.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How long a call of `ts_ingest` may take on a busy machine, and yet have waited for nothing.
pub const PROMPT: Duration = Duration::from_secs(2);
const KEYS: &str = "tailstream:stream:{org}";

/// A server of a test's own, with one mirrored database and a Redis of its own.
#[derive(Debug)]
pub struct Mirror {
    pub cluster: Cluster,
    pub redis: Redis,
    pub database: &'static str,
}

impl Mirror {
    pub fn new(name: &str) -> Self {
        Self::with(name, |builder| builder, |builder| builder)
    }

    /// With settings of the test's own on both sides.
    pub fn with(
        name: &str,
        cluster: impl FnOnce(ClusterBuilder) -> ClusterBuilder,
        redis: impl FnOnce(RedisBuilder) -> RedisBuilder,
    ) -> Self {
        let redis = redis(Redis::builder(&format!("e2e-{name}"))).create().expect("a Redis server");
        let url = redis.url_with_password();
        let cluster = Server::create(name, |builder| {
            let builder = builder
                .preload(&PRELOAD)
                // What waits for ever shall fail; it is not meant for workers.
                .setting("statement_timeout", "60s")
                .setting("tailstream.databases", "app")
                .setting("tailstream.redis_url", &url);
            cluster(builder)
        });
        cluster.create_database("app").expect("a database");
        let mirror = Self { cluster, redis, database: "app" };
        mirror.connect().batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
        make_chunks(&mut mirror.connect());
        mirror
    }

    pub fn connect(&self) -> Client {
        config(&self.cluster, self.database, SUPERUSER).connect(NoTls).expect("a connection")
    }

    /// New connections to both; Redis has to be up.
    pub fn sides(&self) -> Sides {
        Sides::new(self.connect(), &self.redis, KEYS)
    }

    /// Changes a setting of the server as its owner would, without a restart.
    pub fn set(&self, setting: &str, value: &str) {
        set(&mut self.connect(), setting, value);
    }

    /// Lines of the server's log that hold this text.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        let log = fs::read(self.cluster.log_path()).expect("the server's log");
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

/// ALTER SYSTEM and a reload.
pub fn set(client: &mut Client, setting: &str, value: &str) {
    let value = value.replace('\'', "''");
    client.batch_execute(&format!("ALTER SYSTEM SET {setting} = '{value}'")).expect("ALTER SYSTEM");
    client.batch_execute("SELECT pg_reload_conf()").expect("a reload");
}

/// `ts_mirror_status()` of a database.
#[derive(Debug, Clone)]
pub struct Status {
    pub state: String,
    pub connected: bool,
    pub backlog_batches: i64,
    pub backlog_events: i64,
    pub orgs_to_rebuild: i64,
    pub last_error: Option<String>,
    pub entries_sent: i64,
    pub entries_resent: i64,
    pub entries_expired: i64,
    pub retries: i64,
}

/// Both sides of a mirrored database.
pub struct Sides {
    pub client: Client,
    pub redis: redis::Connection,
    keys: String,
}

/// Batches are told apart by their number.
static NUMBER: AtomicI64 = AtomicI64::new(1);

impl Sides {
    /// `keys` is the template of the streams' keys, with `{org}` in it.
    pub fn new(client: Client, redis: &Redis, keys: &str) -> Self {
        let redis = redis.connect().expect("a connection to Redis");
        redis.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { client, redis, keys: keys.to_owned() }
    }

    pub fn key(&self, org: &str) -> String {
        self.keys.replace("{org}", org)
    }

    /// One batch of new events; returns its id.
    #[track_caller]
    pub fn ingest(&mut self, org: &str, events: usize) -> i64 {
        let json = some_events(events);
        let done = ingest(&mut self.client, org, &json, None).expect("ingest");
        assert_eq!(done.accepted as usize, events);
        done.batch_id
    }

    /// The same, which must not have waited for anything.
    #[track_caller]
    pub fn ingest_promptly(&mut self, org: &str, events: usize) {
        let began = Instant::now();
        self.ingest(org, events);
        assert!(began.elapsed() < PROMPT, "ts_ingest took {:?}", began.elapsed());
    }

    /// What is in an org's stream; fails if that is no stream.
    #[track_caller]
    pub fn stream(&mut self, org: &str) -> Vec<Entry> {
        let key = self.key(org);
        stream::read(&mut self.redis, &key).unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    /// What the tables have for it.
    #[track_caller]
    pub fn expected(&mut self, org: &str) -> Vec<Entry> {
        stream::expected(&mut self.client, org)
    }

    pub fn length(&mut self, org: &str) -> usize {
        redis::cmd("XLEN").arg(self.key(org)).query(&mut self.redis).expect("XLEN")
    }

    pub fn status(&mut self) -> Status {
        let sql = "SELECT state, connected_since IS NOT NULL, backlog_batches, backlog_events, orgs_to_rebuild,
                          last_error, entries_sent, entries_resent, entries_expired, retries FROM ts_mirror_status()";
        let row = self.client.query_one(sql, &[]).expect("ts_mirror_status");
        Status {
            state: row.get(0),
            connected: row.get(1),
            backlog_batches: row.get(2),
            backlog_events: row.get(3),
            orgs_to_rebuild: row.get(4),
            last_error: row.get(5),
            entries_sent: row.get(6),
            entries_resent: row.get(7),
            entries_expired: row.get(8),
            retries: row.get(9),
        }
    }

    /// Waits until the mirror is in this state.
    #[track_caller]
    pub fn wait_for_state(&mut self, state: &str) {
        let mut last = None;
        let began = Instant::now();
        while last.as_ref().is_none_or(|status: &Status| status.state != state) {
            assert!(began.elapsed() < PATIENCE, "the mirror never was {state}: {last:?}");
            std::thread::sleep(Duration::from_millis(10));
            last = Some(self.status());
        }
    }

    /// Waits until every committed batch has its place.
    #[track_caller]
    pub fn wait_until_placed(&mut self) {
        eventually("every batch to have its place", PATIENCE, || all_placed(&mut self.client).then_some(()));
    }

    /// Waits until nothing is to be sent and these streams are what the tables hold, all of it.
    #[track_caller]
    pub fn settle(&mut self, orgs: &[&str]) {
        let whole: Vec<_> = orgs.iter().map(|org| (*org, usize::MAX)).collect();
        self.settle_ends(&whole);
    }

    /// The same for streams that may have been trimmed to so many entries.
    #[track_caller]
    pub fn settle_ends(&mut self, orgs: &[(&str, usize)]) {
        let began = Instant::now();
        loop {
            let wrong = self.unsettled(orgs);
            if wrong.is_empty() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {wrong:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for (org, _) in orgs {
            let findings = self.verify(org);
            let bad: Vec<_> = findings.iter().filter(|(kind, _)| kind != "matching").collect();
            assert!(bad.is_empty(), "{org} is as it should be, and ts_mirror_verify says {findings:?}");
        }
    }

    /// What is not as it should be.
    pub fn unsettled(&mut self, orgs: &[(&str, usize)]) -> Vec<String> {
        let mut wrong = Vec::new();
        if !all_placed(&mut self.client) {
            return vec!["batches have no place yet".to_owned()];
        }
        let status = self.status();
        if (status.backlog_batches, status.backlog_events, status.orgs_to_rebuild) != (0, 0, 0)
            || status.state != "running"
        {
            wrong.push(format!("{status:?}"));
        }
        for (org, at_least) in orgs {
            let key = self.key(org);
            // The stream first: what comes after that is missing in none of the two.
            let difference = match stream::read(&mut self.redis, &key) {
                Ok(found) => difference(&found, &self.expected(org), *at_least),
                Err(error) => Some(error.to_string()),
            };
            wrong.extend(difference.map(|difference| format!("{org}: {difference}")));
        }
        wrong
    }

    /// What `ts_mirror_verify` finds, and how many entries.
    pub fn verify(&mut self, org: &str) -> Vec<(String, i64)> {
        let rows = self.client.query("SELECT finding, entries FROM ts_mirror_verify($1)", &[&org]);
        rows.expect("ts_mirror_verify").iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

/// Makes the chunks that events of the next minutes will go to: whoever makes one keeps others waiting until its commit.
pub fn make_chunks(client: &mut Client) {
    let now = now_micros();
    let ahead = Duration::from_secs(240).as_micros() as i64;
    ingest(client, "chunks", &batch(0, now, &[0, -ahead]), None).expect("ingest");
}

/// The JSON of one batch of new events.
pub fn some_events(events: usize) -> String {
    let ages: Vec<i64> = (0..events as i64).collect();
    batch(NUMBER.fetch_add(1, Ordering::Relaxed), now_micros(), &ages)
}

fn all_placed(client: &mut Client) -> bool {
    one(
        client,
        "SELECT NOT EXISTS (SELECT FROM tailstream.batches b WHERE b.event_count > 0
             AND NOT EXISTS (SELECT FROM tailstream.positions p WHERE p.batch_id = b.batch_id))",
    )
}
