//! `tailstream-dev`: what the make targets run.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod demo;
mod layers;
mod suites;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tailstream_devkit::extension::{Installed, install_extension};
use tailstream_devkit::{Cluster, Redis, postgres_install, repository};

#[derive(Parser)]
#[command(name = "tailstream-dev", about = "Private servers behind Tailstream's make targets")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build and install the extension if its sources changed, start the demo's servers and show what Tailstream does
    Demo {
        /// An access log (common or combined format, also gzip) instead of made-up traffic; - is standard input
        #[arg(long)]
        log: Option<PathBuf>,
        /// Stop the servers and remove their files at the end
        #[arg(long)]
        no_keep: bool,
    },
    /// Open psql on the demo database
    Psql {
        /// Arguments for psql
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Stop every private server of this checkout; their data stays
    Stop,
    /// Stop every private server of this checkout and remove its files
    Clean,
    /// Build and install the extension if its sources changed
    Install {
        /// Without optimisation
        #[arg(long)]
        debug: bool,
    },
    /// Run the tests in tests/pg_regress and tests/pg_isolation against a private cluster
    Regress {
        /// Take what the tests print now as what is expected
        #[arg(long)]
        accept: bool,
    },
    /// Run the extension's #[pg_test] tests
    PgrxTest,
    /// Check that modules import each other in one direction only
    Layers,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<()> {
    match action {
        Action::Demo { log, no_keep } => demo::run(log.as_deref(), !no_keep),
        Action::Psql { arguments } => psql(&arguments),
        Action::Stop => stop(),
        Action::Clean => clean(),
        Action::Install { debug } => install(!debug).map(|_| ()),
        Action::Regress { accept } => suites::regress(accept),
        Action::PgrxTest => suites::pgrx_test(),
        Action::Layers => layers::check(&repository::root()?),
    }
}

fn install(release: bool) -> Result<Installed> {
    let installed = install_extension(release)?;
    println!(
        "{}",
        match installed {
            Installed::UpToDate => "the installed extension is up to date",
            Installed::Anew => "the extension is installed",
        }
    );
    Ok(installed)
}

/// Becomes psql, so that signals and the terminal are its own.
fn psql(arguments: &[String]) -> Result<()> {
    let is_there = Cluster::all()?.iter().any(|cluster| cluster.name() == demo::CLUSTER);
    if !is_there {
        bail!("there is no demo database yet; run 'make demo' first");
    }
    let cluster = demo::cluster(&demo::redis()?).ensure_running()?;
    let error = Command::new(postgres_install::program("psql"))
        .args(cluster.psql_args())
        .args(["-d", demo::DATABASE])
        .args(arguments)
        .exec();
    Err(error).context("cannot run psql; run dev/setup.sh")
}

fn stop() -> Result<()> {
    let mut stopped = 0;
    for cluster in Cluster::all()?.iter().filter(|cluster| cluster.is_running()) {
        cluster.stop()?;
        println!("stopped cluster {}", cluster.name());
        stopped += 1;
    }
    for redis in Redis::all()?.iter().filter(|redis| redis.is_running()) {
        redis.stop()?;
        println!("stopped Redis {}", redis.name());
        stopped += 1;
    }
    if stopped == 0 {
        println!("no private server of this checkout is running");
    }
    Ok(())
}

fn clean() -> Result<()> {
    for cluster in Cluster::all()? {
        let name = cluster.name().to_owned();
        cluster.destroy()?;
        println!("removed cluster {name}");
    }
    for redis in Redis::all()? {
        let name = redis.name().to_owned();
        redis.destroy()?;
        println!("removed Redis {name}");
    }
    let target = repository::root()?.join("target");
    let mut dirs = repository::all_clusters_dirs()?;
    dirs.extend(["pg_regress", "pg_isolation"].map(|suite| target.join(suite)));
    dirs.push(repository::far_clusters_dir()?);
    for dir in dirs {
        if fs::symlink_metadata(&dir).is_ok() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    Ok(())
}
