//! The file by which other processes find a cluster.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::server_user::ServerUser;

/// Its presence also marks a directory as one of ours, which may be removed.
const FILE: &str = "cluster.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub port: u16,
    pub socket_dir: PathBuf,
    /// What the server's configuration holds besides port and socket.
    pub settings: Vec<(String, String)>,
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

    pub fn save(&self, dir: &Path, user: &ServerUser) -> Result<()> {
        let text = serde_json::to_string(self).context("cannot write down the cluster's port")?;
        user.write_file(&dir.join(FILE), &text)
    }
}
