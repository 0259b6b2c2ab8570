//! What somebody sees who has never seen Tailstream: real or made-up web traffic is stored, seen
//! live, replayed, upgraded and expired, with every statement shown.

mod ingest;
mod input;
mod live;
mod screen;
mod steps;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tailstream_devkit::extension::Installed;
use tailstream_devkit::process::wait_until;
use tailstream_devkit::{Cluster, ClusterBuilder, Redis, repository};

use input::Input;
use screen::Screen;

pub const CLUSTER: &str = "demo";
pub const DATABASE: &str = "tailstream_demo";
const PRELOAD: [&str; 3] = ["timescaledb", "tailstream", "pg_cron"];

/// How long the last demo's connections may take to go away.
const PATIENCE: Duration = Duration::from_secs(30);

/// The demo's Redis, running.
pub fn redis() -> Result<Redis> {
    Redis::builder(CLUSTER).keep(true).ensure_running()
}

/// The demo's cluster; pg_cron lives in the demo's database, and that is mirrored to Redis.
pub fn cluster(redis: &Redis) -> ClusterBuilder {
    settings(redis)
        .iter()
        .fold(Cluster::builder(CLUSTER), |builder, (name, value)| builder.setting(name, value))
        .preload(&PRELOAD)
        .cron_database(DATABASE)
        .keep(true)
}

/// The settings of the mirror.
fn settings(redis: &Redis) -> [(&'static str, String); 2] {
    [("tailstream.databases", DATABASE.to_owned()), ("tailstream.redis_url", redis.url())]
}

pub fn run(log: Option<&Path>, keep: bool) -> Result<()> {
    let started = Instant::now();
    let screen = Screen::new();
    // A log that cannot be read is known before a build that takes minutes.
    let input = match log {
        Some(path) => Input::from_log(path)?,
        None => Input::made_up()?,
    };
    screen.heading("Build and start");
    let installed = crate::install(true)?;
    let redis = redis()?;
    let mut cluster = cluster(&redis).ensure_running()?;
    if installed == Installed::Anew {
        // A running server has the old library loaded.
        cluster.restart()?;
    }
    screen.say(&format!(
        "A private PostgreSQL server runs on 127.0.0.1:{}, its files are in {};\n\
         a private Redis runs on 127.0.0.1:{}, its files are in {}.",
        cluster.port(),
        cluster.dir().display(),
        redis.port(),
        redis.dir().display()
    ));
    if !cluster.dir().starts_with(repository::root()?) {
        screen.say("They are outside the checkout because the server's user, postgres, cannot enter it.");
    }
    recreate_database(&cluster)?;
    live::empty(&redis)?;
    let mut session = screen.session(cluster.connect(DATABASE)?);
    steps::Story { screen: &screen, cluster: &cluster, redis: &redis, input: &input }.tell(&mut session)?;
    if keep {
        steps::farewell(&screen, started.elapsed());
        return Ok(());
    }
    drop(session);
    cluster.destroy().context("cannot remove the demo's cluster")?;
    redis.destroy().context("cannot remove the demo's Redis")
}

/// A new, empty database; pg_cron's own connection to the old one may come back in between.
fn recreate_database(cluster: &Cluster) -> Result<()> {
    let mut last = None;
    let replaced = wait_until("the demo's old database to go", PATIENCE, || {
        last = cluster.drop_database(DATABASE).err();
        last.is_none()
    });
    if let (Err(timeout), Some(error)) = (replaced, last) {
        return Err(error.context(timeout));
    }
    cluster.create_database(DATABASE)
}
