//! The file by which other processes find a server.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::server_user::ServerUser;

/// Its presence also marks a directory as one of ours, which may be removed.
const FILE: &str = "redis.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// 0 before the first start.
    pub port: u16,
    pub wanted: Wanted,
}

/// The requested properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Directives of the configuration file, in order.
    pub settings: Vec<(String, String)>,
    pub password: Option<String>,
    pub append_only: bool,
    pub tls: bool,
    pub primary: Option<Primary>,
}

/// The server that a replica follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primary {
    pub port: u16,
    pub password: Option<String>,
    /// The authority to trust, when it speaks TLS.
    pub ca: Option<PathBuf>,
}

impl Wanted {
    /// A replica of a server with TLS is refused by Redis unless it has a certificate too.
    pub fn needs_certificates(&self) -> bool {
        self.tls || self.primary.as_ref().is_some_and(|primary| primary.ca.is_some())
    }
}

impl State {
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
                format!("{} is damaged; run 'make clean' or remove its directory", path.display())
            }),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Written atomically, so that other processes never read a partial file.
    pub fn save(&self, dir: &Path, user: &ServerUser) -> Result<()> {
        let text = serde_json::to_string(self).context("cannot write down the server's port")?;
        let (path, new) = (dir.join(FILE), dir.join("redis.json.new"));
        write_private(user, &new, &text)?;
        fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Writes a file that nobody but the server's user can read: other users may pass through the
/// server's directory, for the CA in it, and passwords and keys are in there too.
pub fn write_private(user: &ServerUser, path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    user.write_file(path, text)
}
