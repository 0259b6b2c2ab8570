//! A private Redis server: own directory, own port, loopback only. It neither touches nor needs the
//! Redis of the machine.

mod builder;
mod certificates;
mod config;
mod connection;
mod control;
mod state;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use builder::RedisBuilder;
use certificates::Certificates;
use state::State;

use crate::process::Process;
use crate::repository;
use crate::server_user::ServerUser;

/// Prefix of the directories of Redis servers, which are beside those of the clusters.
const DIR_PREFIX: &str = "redis-";

/// A private server. Dropping it stops the server and removes its files, if it was started through
/// this value and is not to be kept; while panicking the files stay, for the log in them.
#[derive(Debug)]
pub struct Redis {
    name: String,
    dir: PathBuf,
    user: ServerUser,
    state: State,
    keep: bool,
    /// Whether this value made or started it.
    owned: bool,
}

impl Redis {
    /// Describes a server; names are unique in a checkout, among Redis servers.
    pub fn builder(name: &str) -> RedisBuilder {
        RedisBuilder::new(name)
    }

    /// Every Redis server of this checkout that has files on disk, running or not.
    pub fn all() -> Result<Vec<Self>> {
        let user = ServerUser::detect()?;
        let mut servers = Vec::new();
        for parent in repository::all_clusters_dirs()? {
            let Ok(entries) = fs::read_dir(&parent) else {
                continue;
            };
            for entry in entries {
                let dir = entry.with_context(|| format!("cannot read {}", parent.display()))?.path();
                servers.extend(Self::at(&dir, &user)?);
            }
        }
        Ok(servers)
    }

    fn at(dir: &Path, user: &ServerUser) -> Result<Option<Self>> {
        let file_name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = file_name.strip_prefix(DIR_PREFIX) else {
            return Ok(None);
        };
        Ok(State::load(dir)?.map(|state| Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            user: user.clone(),
            state,
            keep: true,
            owned: false,
        }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory with everything of this server in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the server puts what it persists.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The port on loopback; it stays the same over restarts as long as nobody else takes it.
    pub fn port(&self) -> u16 {
        self.state.port
    }

    /// The certificate of the authority that signed the server's, readable by every user; there is
    /// one for a server with TLS only.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.state.wanted.tls.then(|| self.certificates().ca)
    }

    /// The last `n` lines of the server's log.
    pub fn log_tail(&self, n: usize) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(n)..].join("\n")
    }

    /// The server's process, if it runs; a paused one does.
    pub fn process(&self) -> Option<Process> {
        let pid = fs::read_to_string(self.pid_path()).ok()?.trim().parse().ok()?;
        // A pid file survives a crash, and its pid may belong to another process by now.
        Process::find(pid).filter(|process| process.has_argument(&self.config_path()))
    }

    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Ends the server and removes its files.
    pub fn destroy(mut self) -> Result<()> {
        self.owned = false;
        self.kill_if_running()?;
        self.remove_files()
    }

    fn certificates(&self) -> Certificates {
        Certificates::in_dir(&self.dir)
    }

    /// Its path in the command line is what tells the server's process from others.
    fn config_path(&self) -> PathBuf {
        self.dir.join("redis.conf")
    }

    fn pid_path(&self) -> PathBuf {
        self.dir.join("redis.pid")
    }

    fn remove_files(&self) -> Result<()> {
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if !self.owned || self.keep {
            return;
        }
        // Nothing of its data stays, so it need not be saved: that would take its time, and a
        // paused replica's primary would wait for it.
        let killed = self.kill_if_running();
        let cleaned = match killed {
            Ok(()) if !std::thread::panicking() => self.remove_files(),
            other => other,
        };
        if let Err(error) = cleaned {
            eprintln!("Redis {}: {error:#}", self.name);
        }
        if std::thread::panicking() {
            eprintln!("Redis {}: its log is {}", self.name, self.log_path().display());
        }
    }
}
