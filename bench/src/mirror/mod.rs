//! The cost of the mirror for ingest, and its speed.

pub mod drain;
pub mod history;
pub mod lag;
pub mod memory;
pub mod overhead;
pub mod rate;
pub mod single;
pub mod steady;

use std::cell::{RefCell, RefMut};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postgres::Client;
use serde_json::value::RawValue;
use tailstream_devkit::Redis;
use tailstream_devkit::event::{json_array, now_micros};

use crate::sample::Samples;
use crate::server::Server;

/// Each comparison has a database of its own: otherwise its streams would be written again into the next one's Redis.
pub const DATABASES: [&str; 8] = [
    rate::DATABASE,
    overhead::DATABASE,
    lag::DATABASE,
    drain::DATABASE,
    memory::DATABASE,
    history::DATABASE,
    history::SHORT,
    single::DATABASE,
];

/// How often something is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(300);
/// No server listens on this port.
const NOWHERE: &str = "redis://127.0.0.1:1";

/// A database with a sequencer and a mirror, and the Redis it is mirrored to.
pub struct Mirror<'a> {
    server: &'a Server,
    database: &'static str,
    redis: Redis,
    /// Looks at the database and sets what is to be set.
    control: RefCell<Client>,
}

impl<'a> Mirror<'a> {
    /// Returns once the mirror is connected.
    pub fn start(server: &'a Server, database: &'static str) -> Result<Self> {
        let redis = Redis::builder("bench").create()?;
        let control = RefCell::new(server.connect(database)?);
        let mirror = Self { server, database, redis, control };
        mirror.set("tailstream.redis_url", &mirror.redis.url())?;
        mirror.set("tailstream.databases", database)?;
        mirror.wait(
            "the mirror to start",
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = current_database() AND backend_type = 'tailstream mirror')",
        )?;
        mirror.wait_for_state("running")?;
        Ok(mirror)
    }

    /// Removes the database and everything set for it.
    pub fn stop(self) -> Result<()> {
        for setting in ["tailstream.databases", "tailstream.redis_url"] {
            self.alter(&format!("RESET {setting}"))?;
        }
        drop(self.control);
        self.server.drop_database(self.database)?;
        self.redis.destroy()
    }

    pub fn connect(&self) -> Result<Client> {
        self.server.connect(self.database)
    }

    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Switches the mirror off, which leaves the sequencer, or on.
    pub fn enable(&self, enabled: bool) -> Result<()> {
        self.set("tailstream.mirror_enabled", if enabled { "on" } else { "off" })?;
        self.wait_for_state(if enabled { "running" } else { "off" })
    }

    /// Makes Redis unreachable.
    pub fn cut(&self) -> Result<()> {
        self.set("tailstream.redis_url", NOWHERE)?;
        self.wait_for_state("failing")
    }

    /// Makes it reachable again. The mirror connects at once, however long it would have waited by
    /// then: the address is another one.
    pub fn mend(&self) -> Result<()> {
        self.set("tailstream.redis_url", &self.redis.url())
    }

    /// The key of an org's stream.
    pub fn stream(&self, org: &str) -> Result<String> {
        let row = self.control().query_one("SELECT stream_key FROM ts_mirror_status($1)", &[&org])?;
        Ok(row.get(0))
    }

    /// Returns once everything committed is in Redis.
    pub fn wait_until_sent(&self) -> Result<()> {
        self.wait(
            "everything to be mirrored",
            "SELECT backlog_events = 0 AND state = 'running' FROM ts_mirror_status()",
        )
    }

    /// Returns once every batch has its place.
    pub fn wait_until_placed(&self) -> Result<()> {
        self.wait(
            "every batch to have its place",
            "SELECT NOT EXISTS (SELECT FROM tailstream.batches b
                                WHERE NOT EXISTS (SELECT FROM tailstream.positions p WHERE p.batch_id = b.batch_id))",
        )
    }

    /// Error unless the org's stream is exactly what the table says. Returns how many entries that is.
    pub fn verify(&self, org: &str) -> Result<u64> {
        let sql = "SELECT finding, entries FROM ts_mirror_verify($1) WHERE entries > 0";
        let mut matching = 0;
        for row in self.control().query(sql, &[&org]).context("cannot verify a stream")? {
            let (finding, entries): (String, i64) = (row.get(0), row.get(1));
            if finding != "matching" {
                bail!("the stream of org {org} has {entries} {finding} entries");
            }
            matching = u64::try_from(entries)?;
        }
        Ok(matching)
    }

    fn control(&self) -> RefMut<'_, Client> {
        self.control.borrow_mut()
    }

    fn set(&self, setting: &str, value: &str) -> Result<()> {
        self.alter(&format!("SET {setting} = '{value}'"))
    }

    fn alter(&self, what: &str) -> Result<()> {
        // One by one: ALTER SYSTEM refuses to be part of a transaction.
        for sql in [format!("ALTER SYSTEM {what}"), "SELECT pg_reload_conf()".to_owned()] {
            self.control().batch_execute(&sql).with_context(|| format!("cannot run {sql}"))?;
        }
        Ok(())
    }

    fn wait_for_state(&self, state: &str) -> Result<()> {
        let what = format!("the mirror to be {state}");
        self.wait(&what, &format!("SELECT state = '{state}' FROM ts_mirror_status()"))
    }

    fn wait(&self, what: &str, sql: &str) -> Result<()> {
        let condition = self.control().prepare(sql)?;
        wait_until(what, POLL, || Ok(self.control().query_one(&condition, &[])?.get(0))).with_context(|| {
            let sql = "SELECT format('the mirror is %s: %s', state, last_error) FROM ts_mirror_status()";
            self.control().query_one(sql, &[]).map_or_else(|error| error.to_string(), |row| row.get(0))
        })
    }
}

/// Waits until the condition holds, which is looked at that often.
fn wait_until(what: &str, every: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        if started.elapsed() > PATIENCE {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        thread::sleep(every);
    }
    Ok(())
}

/// A batch of events that happen now, from the sample with this number on.
pub fn batch(samples: &Samples, from: usize, count: usize) -> Result<Box<RawValue>> {
    let now = now_micros();
    let objects = (from..from + count)
        .map(|index| {
            let sample = samples.get(index);
            let address = sample.ip_address.map(|address| address.to_string());
            sample.to_json(now, address.as_deref())
        })
        .collect::<Result<Vec<_>>>()?;
    RawValue::from_string(json_array(&objects)).context("a batch is no JSON")
}
