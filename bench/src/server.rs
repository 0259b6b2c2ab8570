//! The private server that all contenders share.

use std::cell::RefCell;

use anyhow::{Context, Result};
use postgres::Client;
use tailstream_devkit::Cluster;

use crate::machine::memory_bytes;

/// The database of the extension.
pub const OURS: &str = "tailstream";
/// Databases of the extension with much and with little stored.
pub const SCALE_MANY: &str = "scale_many";
pub const SCALE_FEW: &str = "scale_few";
/// The database of the plan's table.
pub const SEED: &str = "seed";

const MB: u64 = 1 << 20;

/// The plan's table and indexes, word for word; it stores the whole event again in `metadata`.
const SEED_TABLE: &str = "
    CREATE TABLE log_events (
        id BIGSERIAL,
        created_at TIMESTAMPTZ NOT NULL,
        org_id VARCHAR(255) NOT NULL,
        host VARCHAR(255),
        method VARCHAR(10),
        path TEXT,
        status INTEGER,
        response_time INTEGER,
        response_size BIGINT,
        user_agent TEXT,
        referrer TEXT,
        ip_address INET,
        metadata JSONB,
        PRIMARY KEY (id, created_at)
    );
    SELECT create_hypertable('log_events', 'created_at');
    CREATE INDEX idx_log_events_org_time ON log_events (org_id, created_at DESC);
    CREATE INDEX idx_log_events_status_time ON log_events (status, created_at DESC);
    CREATE INDEX idx_log_events_host_time ON log_events (host, created_at DESC);";

pub struct Server {
    cluster: Cluster,
    settings: Vec<(String, String)>,
    /// Takes the checkpoints, beside the contenders' connections.
    control: RefCell<Client>,
}

impl Server {
    /// A new server with the database of the plan's table, and with databases of the extension. All
    /// are made now: the running server has the library of this moment loaded, which would not fit an
    /// extension that somebody installs meanwhile.
    pub fn start(ours: &[&str]) -> Result<Self> {
        let settings = settings()?;
        let cluster = Cluster::builder("bench")
            .preload(&["timescaledb", "tailstream"])
            .settings(settings.clone())
            .create()?;
        let control = RefCell::new(cluster.connect("postgres")?);
        let server = Self { cluster, settings, control };
        ours.iter().try_for_each(|database| server.create_ours(database))?;
        server.cluster.create_database(SEED)?;
        let mut seed = server.connect(SEED)?;
        seed.batch_execute("CREATE EXTENSION timescaledb").context("cannot create extension timescaledb")?;
        seed.batch_execute(SEED_TABLE).context("cannot create the plan's table")?;
        Ok(server)
    }

    fn create_ours(&self, name: &str) -> Result<()> {
        self.cluster.create_database(name)?;
        self.connect(name)?
            .batch_execute("CREATE EXTENSION tailstream CASCADE")
            .context("cannot create extension tailstream; run 'make install'")
    }

    pub fn drop_database(&self, name: &str) -> Result<()> {
        self.cluster.drop_database(name)
    }

    pub fn connect(&self, database: &str) -> Result<Client> {
        let mut client = self.cluster.connect(database)?;
        client.batch_execute("SET client_min_messages = warning").context("cannot quiet the notices")?;
        Ok(client)
    }

    pub fn checkpoint(&self) -> Result<()> {
        self.control.borrow_mut().batch_execute("CHECKPOINT").context("cannot take a checkpoint")
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What differs from PostgreSQL's defaults.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    pub fn destroy(self) -> Result<()> {
        self.cluster.destroy()
    }
}

/// Settings of a server that somebody has looked after, the same for all contenders. fsync,
/// synchronous_commit, full_page_writes and wal_level stay as they are by default.
fn settings() -> Result<Vec<(String, String)>> {
    let memory = memory_bytes()? / MB;
    let megabytes = |count: u64| format!("{count}MB");
    let settings = [
        ("shared_buffers", megabytes((memory / 4).clamp(128, 4096))),
        ("effective_cache_size", megabytes(memory / 2)),
        ("work_mem", megabytes(32)),
        ("maintenance_work_mem", megabytes(256)),
        ("max_wal_size", "8GB".to_owned()),
        ("checkpoint_timeout", "30min".to_owned()),
        ("random_page_cost", "1.1".to_owned()),
        // It would fall into one contender's round and not into the other's; what belongs to a
        // comparison is vacuumed there.
        ("autovacuum", "off".to_owned()),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value)).to_vec())
}
