//! Describing a server, and making or finding it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, bail};

use super::state::{Primary, State, Wanted};
use super::{DIR_PREFIX, Redis};
use crate::repository;
use crate::server_user::ServerUser;

/// The properties of a server.
#[derive(Clone, Debug)]
pub struct RedisBuilder {
    name: String,
    wanted: Wanted,
    keep: bool,
}

impl RedisBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), wanted: Wanted::default(), keep: false }
    }

    /// One directive of redis.conf, its arguments as they stand there (`"save", "60 1"`); it may be
    /// repeated. The default user has to be allowed PING and INFO, or the server never counts as up.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.wanted.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The password of clients.
    pub fn password(mut self, password: &str) -> Self {
        self.wanted.password = Some(password.to_owned());
        self
    }

    /// Whether what is written survives the server, in an append-only file; a setting
    /// `appendfsync` says how well. Nothing does unless asked for.
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.wanted.append_only = append_only;
        self
    }

    /// Whether its port speaks TLS, and TLS only.
    pub fn tls(mut self, tls: bool) -> Self {
        self.wanted.tls = tls;
        self
    }

    /// Follows the other server, which may speak TLS and want a password.
    pub fn replica_of(mut self, primary: &Redis) -> Self {
        self.wanted.primary = Some(Primary {
            port: primary.port(),
            password: primary.state.wanted.password.clone(),
            ca: primary.ca_file(),
        });
        self
    }

    /// Whether server and files outlive the value.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// A running server with nothing in it: what an earlier one of this name left is removed.
    pub fn create(self) -> Result<Redis> {
        let (mut redis, found, _lock) = self.locate()?;
        if found.is_some() {
            redis.kill_if_running()?;
            redis.remove_files()?;
        }
        redis.make()?;
        redis.start()?;
        Ok(redis)
    }

    /// The server of this name, running: found, started, or made. One that runs with other settings
    /// is restarted.
    pub fn ensure_running(self) -> Result<Redis> {
        let (mut redis, found, _lock) = self.locate()?;
        match found {
            None => redis.make()?,
            Some(found) if found.wanted != redis.state.wanted => redis.stop()?,
            Some(_) => {}
        }
        redis.start()?;
        Ok(redis)
    }

    /// Finds the directory and what it says of an earlier server, and keeps other processes out of
    /// it until the lock is dropped.
    fn locate(self) -> Result<(Redis, Option<State>, File)> {
        self.check()?;
        let user = ServerUser::detect()?;
        let parent = repository::clusters_dir(&user)?;
        let lock = lock(&user)?;
        let dir = parent.join(format!("{DIR_PREFIX}{}", self.name));
        let found = State::load(&dir)?;
        let port = found.as_ref().map_or(0, |found| found.port);
        let state = State { port, wanted: self.wanted };
        let redis = Redis { name: self.name, dir, user, state, keep: self.keep, owned: false };
        Ok((redis, found, lock))
    }

    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.name.is_empty() || !self.name.chars().all(plain) {
            bail!("a Redis server's name is letters, digits, - and _, which {:?} is not", self.name);
        }
        let settings = self.wanted.settings.iter().flat_map(|(name, value)| [name, value]);
        for text in settings.chain(&self.wanted.password) {
            if text.contains(['\n', '\r', '\0']) {
                bail!("a line of redis.conf cannot hold {text:?}");
            }
        }
        Ok(())
    }
}

/// One lock for all Redis servers of a checkout: it is held for the moment that starting one takes.
fn lock(user: &ServerUser) -> Result<File> {
    let path = repository::clusters_dir(user)?.join("redis.lock");
    let open = || -> std::io::Result<File> {
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().with_context(|| format!("cannot lock {}; is it yours?", path.display()))
}

impl Redis {
    /// Makes the directory, with nothing persisted in it.
    fn make(&mut self) -> Result<()> {
        if self.dir.exists() && fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} holds something that is no Redis server of ours; remove it", self.dir.display());
        }
        self.user.make_private_dir(&self.dir)?;
        // Others may pass through, to the CA's certificate; they see no names.
        fs::set_permissions(&self.dir, Permissions::from_mode(0o711))
            .with_context(|| format!("cannot set the mode of {}", self.dir.display()))?;
        self.state.save(&self.dir, &self.user)?;
        // From here on a failure leaves nothing behind.
        self.owned = true;
        Ok(())
    }
}
