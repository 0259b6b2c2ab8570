//! Making, starting, stopping and killing the server.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cluster, settings};
use crate::postgres_install;
use crate::process::wait_until;

/// Crash recovery of a big test may take its time.
const PATIENCE: Duration = Duration::from_secs(180);
/// Another process may take the port between the search for a free one and the start of the server.
const PORT_ATTEMPTS: usize = 5;
/// Lines of the server's log that go into an error.
const LOG_LINES: usize = 15;

impl Cluster {
    pub(super) fn init_db(&self) -> Result<()> {
        let mut initdb = self.user.command(postgres_install::program("initdb"));
        // Connections over the private socket are trusted; over loopback, which everybody on the
        // machine can reach, a role needs a password. Nothing is lost by not syncing a new cluster.
        initdb
            .args(["--locale=C.UTF-8", "--encoding=UTF8", "--username=postgres", "--no-sync"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .arg("--pgdata")
            .arg(self.data_dir());
        run(&mut initdb, "initdb")?;
        let conf = self.data_dir().join("postgresql.conf");
        OpenOptions::new()
            .append(true)
            .open(&conf)
            .and_then(|mut file| file.write_all(b"include '../server.conf'\n"))
            .with_context(|| format!("cannot write {}", conf.display()))
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let mut refused = anyhow!("no port was free");
        for _ in 0..PORT_ATTEMPTS {
            self.take_port()?;
            let log_before = fs::metadata(self.log_path()).map_or(0, |log| log.len());
            match self.pg_ctl_start() {
                Ok(()) => {
                    self.owned = true;
                    return Ok(());
                }
                Err(error) if self.log_since(log_before).contains("could not create any TCP/IP sockets") => {
                    refused = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.context("cannot find a port for the server"))
    }

    /// Stops the server at once, rolling back what is open.
    pub fn stop(&self) -> Result<()> {
        let Some(postmaster) = self.postmaster() else {
            return Ok(());
        };
        postmaster.signal(Signal::SIGINT)?;
        wait_until("the server to stop", PATIENCE, || !postmaster.is_alive()).with_context(|| {
            format!("cluster {} does not stop; its log ends:\n{}", self.name, self.log_tail(LOG_LINES))
        })
    }

    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// `kill -9` of the whole server, as a crash would be; returns when all its processes are gone.
    pub fn kill9(&self) -> Result<()> {
        let postmaster = self.postmaster().with_context(|| format!("cluster {} does not run", self.name))?;
        postmaster.kill_with_children(PATIENCE)?;
        // Where nobody reaps orphans the dead process keeps its pid, which PostgreSQL would take
        // for a running server.
        if kill(Pid::from_raw(postmaster.pid), None).is_ok() && !postmaster.is_alive() {
            for leftover in [self.data_dir().join("postmaster.pid"), self.socket_lock()] {
                fs::remove_file(&leftover)
                    .with_context(|| format!("cannot remove {}", leftover.display()))?;
            }
        }
        Ok(())
    }

    /// Keeps the port of the last start if it is free, so that clients find the server again.
    fn take_port(&mut self) -> Result<()> {
        let free = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|socket| socket.local_addr());
        let address =
            free(self.state.port).or_else(|_| free(0)).context("no TCP port is free on 127.0.0.1")?;
        self.state.port = address.port();
        self.state.save(&self.dir, &self.user)?;
        let settings = self.dir.join("server.conf");
        self.user.write_file(&settings, &settings::render(&self.state))?;
        self.user.make_private_dir(self.socket_dir())
    }

    fn pg_ctl_start(&self) -> Result<()> {
        let mut pg_ctl = self.user.command(postgres_install::program("pg_ctl"));
        pg_ctl
            .args(["start", "--wait", "--silent", "--timeout"])
            .arg(PATIENCE.as_secs().to_string())
            .arg("--pgdata")
            .arg(self.data_dir())
            .arg("--log")
            .arg(self.log_path());
        run(&mut pg_ctl, "pg_ctl start").with_context(|| {
            format!("cluster {} does not start; its log ends:\n{}", self.name, self.log_tail(LOG_LINES))
        })
    }

    fn log_since(&self, offset: u64) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
        String::from_utf8_lossy(&log[start..]).into_owned()
    }

    fn socket_lock(&self) -> PathBuf {
        self.socket_dir().join(format!(".s.PGSQL.{}.lock", self.port()))
    }
}

/// Runs a command quietly; what it said becomes the error.
fn run(command: &mut Command, what: &str) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {what}; is PostgreSQL installed? dev/setup.sh does it"))?;
    if !output.status.success() {
        bail!(
            "{what} failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}
