//! Building the extension and putting it where the server looks for it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::{postgres_install, repository};

/// What the installed extension is made of, besides the control file.
const SOURCES: [&str; 7] =
    ["src", "sql", "crates", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "tailstream.control"];

/// What installing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The installed extension is what the sources say already.
    UpToDate,
    /// It was built and copied; running servers keep the old library until they are restarted.
    Anew,
}

/// Installs the extension unless that has been done since its sources last changed: it takes about
/// a minute in release mode.
pub fn install_extension(release: bool) -> Result<Installed> {
    let root = repository::root()?;
    let library = library()?;
    let stamp_path = root.join(format!("target/extension-install-{}.stamp", postgres_install::major()?));
    let stamp = || -> Result<String> {
        Ok(format!("{release} {:016x} {}", hash_sources(&root)?, version_of(&library)))
    };
    if library.exists()
        && fs::read_to_string(&stamp_path).is_ok_and(|last| stamp().is_ok_and(|now| now == last))
    {
        return Ok(Installed::UpToDate);
    }
    install(&root, release)?;
    fs::write(&stamp_path, stamp()?).with_context(|| format!("cannot write {}", stamp_path.display()))?;
    Ok(Installed::Anew)
}

/// Takes the installed library away from its name. What copies the next one may write into the file
/// that is there, and running servers have that one mapped: they would crash. So they keep theirs,
/// and the copy becomes a new file.
pub fn detach_library() -> Result<()> {
    let library = library()?;
    if !library.exists() {
        return Ok(());
    }
    if geteuid().is_root() {
        return fs::remove_file(&library).with_context(|| format!("cannot remove {}", library.display()));
    }
    let status = Command::new("sudo")
        .args(["rm", "-f"])
        .arg(&library)
        .status()
        .context("cannot run sudo; install it or run as root")?;
    if !status.success() {
        bail!("cannot remove {} by sudo", library.display());
    }
    Ok(())
}

fn library() -> Result<PathBuf> {
    Ok(PathBuf::from(postgres_install::ask_pg_config("--pkglibdir")?).join("tailstream.so"))
}

fn install(root: &Path, release: bool) -> Result<()> {
    let mut command = cargo(root);
    command.args(["pgrx", "install", "--pg-config"]).arg(postgres_install::program("pg_config"));
    if release {
        command.arg("--release");
    }
    if !geteuid().is_root() {
        command.arg("--sudo");
        detach_library()?;
    }
    let status = command.status().context("cannot run cargo; install Rust and run dev/setup.sh")?;
    if !status.success() {
        bail!("'cargo pgrx install' failed; what it says above tells why");
    }
    Ok(())
}

/// Cargo in the repository. What an outer cargo tells its program about itself must not reach the
/// inner one: build scripts look at such variables and would run again and again.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    let is_outer = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            name == "CARGO"
                || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        })
    };
    for (name, _) in env::vars_os().filter(|(name, _)| is_outer(name)) {
        command.env_remove(name);
    }
    command
}

/// When the library was written: somebody else may have installed another one since.
fn version_of(library: &Path) -> String {
    let changed = fs::metadata(library).and_then(|metadata| metadata.modified());
    let since_epoch = changed.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{}", since_epoch.unwrap_or_default().as_nanos())
}

fn hash_sources(root: &Path) -> Result<u64> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect_files(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hashes = Vec::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hashes.extend(repository::fnv1a(file.as_os_str().as_encoded_bytes()).to_le_bytes());
        hashes.extend(repository::fnv1a(&content).to_le_bytes());
    }
    Ok(repository::fnv1a(&hashes))
}

fn collect_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            collect_files(&entry.with_context(|| format!("cannot read {}", path.display()))?.path(), files)?;
        }
    } else if path.exists() {
        files.push(path.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_sources() {
        let root = env::temp_dir().join(format!("tailstream-hash-{}", std::process::id()));
        fs::create_dir_all(root.join("src/inner")).unwrap();
        fs::write(root.join("src/inner/a.rs"), "a").unwrap();
        let before = hash_sources(&root).unwrap();
        assert_eq!(hash_sources(&root).unwrap(), before);
        fs::write(root.join("src/inner/a.rs"), "b").unwrap();
        assert_ne!(hash_sources(&root).unwrap(), before);
        fs::remove_dir_all(&root).unwrap();
    }
}
