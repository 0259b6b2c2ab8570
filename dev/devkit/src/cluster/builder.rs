//! Describing a cluster, and making or finding it.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::state::State;
use super::{Cluster, settings};
use crate::repository;
use crate::server_user::ServerUser;

/// The properties of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    name: String,
    dir: Option<PathBuf>,
    settings: Vec<(String, String)>,
    preload: Vec<String>,
    keep: bool,
}

impl ClusterBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            dir: None,
            settings: Vec::new(),
            preload: ["timescaledb", "pg_cron"].map(str::to_owned).to_vec(),
            keep: false,
        }
    }

    /// Where its files go; the user the server runs as must be able to reach it.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// One server setting; the last one of a name wins.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn settings(mut self, settings: Vec<(String, String)>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// The database pg_cron lives in: the only one where its extension can be created.
    pub fn cron_database(self, name: &str) -> Self {
        self.setting("cron.database_name", name)
    }

    /// The libraries of `shared_preload_libraries`, in order; `timescaledb` and `pg_cron` unless
    /// said otherwise.
    pub fn preload(mut self, libraries: &[&str]) -> Self {
        self.preload = libraries.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Whether server and files outlive the value.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// A running cluster with nothing in it: what an earlier one of this name left is removed.
    pub fn create(self) -> Result<Cluster> {
        let (mut cluster, found, _lock) = self.locate()?;
        if found.is_some() {
            cluster.stop()?;
            cluster.remove_files()?;
        }
        cluster.make()?;
        cluster.start()?;
        Ok(cluster)
    }

    /// The cluster of this name, running: found, started, or made. One that runs with other
    /// settings is restarted.
    pub fn ensure_running(self) -> Result<Cluster> {
        let (mut cluster, found, _lock) = self.locate()?;
        // The first start writes this file; without it initdb may have been interrupted.
        let is_whole = cluster.dir.join("server.conf").exists();
        if found.is_some() && !is_whole {
            cluster.remove_files()?;
        }
        if !is_whole {
            cluster.make()?;
        }
        if found.is_some_and(|found| found.settings != cluster.state.settings) {
            cluster.stop()?;
        }
        cluster.start()?;
        Ok(cluster)
    }

    /// Finds the directory and what it says of an earlier cluster, and keeps other processes out
    /// of it until the lock is dropped.
    fn locate(mut self) -> Result<(Cluster, Option<State>, File)> {
        let user = ServerUser::detect()?;
        let dir = self.place(&user)?;
        let lock = lock(&user)?;
        let found = State::load(&dir)?;
        let preload = ("shared_preload_libraries".to_owned(), self.preload.join(","));
        self.settings.insert(0, preload);
        let state = State {
            port: found.as_ref().map_or(0, |found| found.port),
            socket_dir: settings::socket_dir(&dir, &user),
            settings: self.settings,
        };
        let cluster = Cluster { name: self.name, dir, user, state, keep: self.keep, owned: false };
        Ok((cluster, found, lock))
    }

    /// The cluster's directory; its parent is there and open to the server's user.
    fn place(&self, user: &ServerUser) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.name.is_empty() || !self.name.chars().all(plain) {
            bail!("a cluster's name is letters, digits, - and _, which {:?} is not", self.name);
        }
        let Some(dir) = &self.dir else {
            return Ok(repository::clusters_dir(user)?.join(&self.name));
        };
        let dir = std::path::absolute(dir).context("cannot find the current directory")?;
        let parent = dir.parent().context("a cluster cannot live in the root directory")?;
        user.make_dir_with_parents(parent)?;
        if !user.can_enter(parent) {
            bail!("the user that PostgreSQL runs as cannot enter {}; choose another one", parent.display());
        }
        Ok(dir)
    }
}

/// One lock for all clusters of a checkout: it is held for the seconds that making one takes.
fn lock(user: &ServerUser) -> Result<File> {
    let path = repository::clusters_dir(user)?.join("lock");
    let open = || -> std::io::Result<File> {
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().with_context(|| format!("cannot lock {}; is it yours?", path.display()))
}

impl Cluster {
    /// Makes the directory and an empty database cluster in it.
    fn make(&mut self) -> Result<()> {
        if self.dir.exists() && fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(
                "{} holds something that is no cluster of ours; choose another directory",
                self.dir.display()
            );
        }
        self.user.make_private_dir(&self.dir)?;
        self.state.save(&self.dir, &self.user)?;
        // From here on a failure leaves nothing behind.
        self.owned = true;
        self.init_db()
    }
}
