//! A private PostgreSQL server: own data directory, own port, own socket. It neither touches nor
//! needs the clusters of the machine.

mod builder;
mod connection;
mod control;
mod settings;
mod state;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use builder::ClusterBuilder;
pub use connection::{SUPERUSER, quote_ident};
use state::State;

use crate::process::Process;
use crate::repository;
use crate::server_user::ServerUser;

/// A private server. Dropping it stops the server and removes its files, if it was started through
/// this value and is not to be kept; while panicking the files stay, for the log in them.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    dir: PathBuf,
    user: ServerUser,
    state: State,
    keep: bool,
    /// Whether this value made or started it.
    owned: bool,
}

impl Cluster {
    /// Describes a cluster; names are unique in a checkout.
    pub fn builder(name: &str) -> ClusterBuilder {
        ClusterBuilder::new(name)
    }

    /// Every cluster of this checkout that has files on disk, running or not.
    pub fn all() -> Result<Vec<Self>> {
        let user = ServerUser::detect()?;
        let mut clusters = Vec::new();
        for parent in repository::all_clusters_dirs()? {
            let Ok(entries) = fs::read_dir(&parent) else {
                continue;
            };
            for entry in entries {
                let dir = entry.with_context(|| format!("cannot read {}", parent.display()))?.path();
                clusters.extend(Self::at(&dir, &user)?);
            }
        }
        Ok(clusters)
    }

    fn at(dir: &Path, user: &ServerUser) -> Result<Option<Self>> {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
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

    /// The directory with everything of this cluster in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The user the server runs as.
    pub fn user(&self) -> &ServerUser {
        &self.user
    }

    /// The port on loopback; it stays the same over restarts as long as nobody else takes it.
    pub fn port(&self) -> u16 {
        self.state.port
    }

    pub fn socket_dir(&self) -> &Path {
        &self.state.socket_dir
    }

    /// The last `n` lines of the server's log.
    pub fn log_tail(&self, n: usize) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(n)..].join("\n")
    }

    /// The server's main process, if it runs.
    pub fn postmaster(&self) -> Option<Process> {
        let pid_file = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        let pid = pid_file.lines().next()?.trim().parse().ok()?;
        // A pid file outlives a crash, and its pid may be somebody else's by now.
        Process::find(pid).filter(|process| process.has_argument(&self.data_dir()))
    }

    pub fn is_running(&self) -> bool {
        self.postmaster().is_some()
    }

    /// Stops the server and removes its files.
    pub fn destroy(mut self) -> Result<()> {
        self.owned = false;
        self.stop()?;
        self.remove_files()
    }

    fn remove_files(&self) -> Result<()> {
        for dir in [self.socket_dir(), self.dir()] {
            if dir.exists() {
                fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.owned || self.keep {
            return;
        }
        let stopped = self.stop();
        let cleaned = match stopped {
            Ok(()) if !std::thread::panicking() => self.remove_files(),
            other => other,
        };
        if let Err(error) = cleaned {
            eprintln!("cluster {}: {error:#}", self.name);
        }
        if std::thread::panicking() {
            eprintln!("cluster {}: its log is {}", self.name, self.log_path().display());
        }
    }
}
