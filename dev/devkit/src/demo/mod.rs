//! What somebody sees who has never seen Tailstream: real or made-up web traffic is stored,
//! replayed, upgraded and expired, with every statement shown.

mod ingest;
mod input;
mod screen;
mod steps;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tailstream_devkit::extension::Installed;
use tailstream_devkit::process::wait_until;
use tailstream_devkit::{Cluster, ClusterBuilder, repository};

use input::Input;
use screen::Screen;

pub const CLUSTER: &str = "demo";
pub const DATABASE: &str = "tailstream_demo";

/// How long the last demo's connections may take to go away.
const PATIENCE: Duration = Duration::from_secs(30);

/// The demo's cluster; pg_cron lives in the demo's database.
pub fn cluster() -> ClusterBuilder {
    Cluster::builder(CLUSTER)
        .preload(&["timescaledb", "tailstream", "pg_cron"])
        .cron_database(DATABASE)
        .keep(true)
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
    let mut cluster = cluster().ensure_running()?;
    if installed == Installed::Anew {
        // A running server has the old library loaded.
        cluster.restart()?;
    }
    screen.say(&format!(
        "A private PostgreSQL server runs on 127.0.0.1:{}, its files are in {}.",
        cluster.port(),
        cluster.dir().display()
    ));
    if !cluster.dir().starts_with(repository::root()?) {
        screen.say("They are outside the checkout because the server's user, postgres, cannot enter it.");
    }
    recreate_database(&cluster)?;
    let mut session = screen.session(cluster.connect(DATABASE)?);
    steps::tell(&screen, &mut session, &cluster, &input)?;
    if keep {
        steps::farewell(&screen, started.elapsed());
        return Ok(());
    }
    drop(session);
    cluster.destroy().context("cannot remove the demo's cluster")
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
