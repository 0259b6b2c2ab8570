//! The operating-system user a private server runs as. PostgreSQL refuses to run as root, so root
//! hands it to user `postgres`; everybody else runs it as themselves.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User, geteuid};

/// Who owns the server's files and processes.
#[derive(Clone, Debug)]
pub struct ServerUser {
    uid: u32,
    /// The identity to switch to: uid and gid; `None` when it is the current user.
    switch_to: Option<(u32, u32)>,
}

impl ServerUser {
    /// `postgres` for root, the current user otherwise.
    pub fn detect() -> Result<Self> {
        let me = geteuid();
        if !me.is_root() {
            return Ok(Self { uid: me.as_raw(), switch_to: None });
        }
        let user = User::from_name("postgres")
            .context("cannot look up user postgres")?
            .context("there is no user postgres to run the server as; run dev/setup.sh")?;
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        Ok(Self { uid, switch_to: Some((uid, gid)) })
    }

    /// Whether the server runs as another user than the caller.
    pub fn is_other(&self) -> bool {
        self.switch_to.is_some()
    }

    /// Its login name.
    pub fn name(&self) -> Result<String> {
        let user = User::from_uid(Uid::from_raw(self.uid))
            .with_context(|| format!("cannot look up uid {}", self.uid))?
            .with_context(|| format!("uid {} has no name", self.uid))?;
        Ok(user.name)
    }

    /// A command that runs as this user, with a clean environment (no `PG*` of the caller's leaks
    /// into a private server) and nothing on its stdin.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.switch_to {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Whether this user may enter the directory, asked of the system itself: permissions of the
    /// directories above, ACLs and mounts all count.
    pub fn can_enter(&self, dir: &Path) -> bool {
        self.command("test").arg("-x").arg(dir).status().is_ok_and(|status| status.success())
    }

    /// Makes a directory that this user can enter, and those above it that are missing.
    pub fn make_dir_with_parents(&self, dir: &Path) -> Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.make_dir_with_parents(parent)?;
        }
        make_dir(dir, 0o755)
    }

    /// Makes a directory that belongs to this user alone; one that is there already must be its own.
    pub fn make_private_dir(&self, dir: &Path) -> Result<()> {
        if let Ok(found) = fs::symlink_metadata(dir) {
            if !found.is_dir() || found.uid() != self.uid {
                bail!("{} is there and belongs to somebody else; remove it", dir.display());
            }
            return Ok(());
        }
        make_dir(dir, 0o700)?;
        self.give(dir)
    }

    /// Writes a file that this user can read.
    pub fn write_file(&self, path: &Path, content: &str) -> Result<()> {
        fs::write(path, content)
            .with_context(|| format!("cannot write {}; is the disk full?", path.display()))?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.switch_to else {
            return Ok(());
        };
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("cannot give {} to user postgres", path.display()))
    }
}

/// The mode is set after the directory is made, so that the caller's umask has no say.
fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.with_context(|| format!("cannot create {}; is it writable for you?", dir.display()))?,
    }
    fs::set_permissions(dir, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", dir.display()))
}
