//! Where this checkout is, and where its clusters may live.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::postgres_install;
use crate::server_user::ServerUser;

/// Name of the directory of clusters; those of another major version than the default have that appended.
const CLUSTERS: &str = "clusters";
/// The file that only the root of this repository has.
const ROOT_MARKER: &str = "tailstream.control";

/// The root of the repository: the nearest directory upwards from the current one that holds the
/// extension's control file, else the one this crate was compiled in.
pub fn root() -> Result<PathBuf> {
    let compiled_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = env::current_dir().context("cannot read the current directory; cd to the repository")?;
    here.ancestors()
        .chain(compiled_in.ancestors())
        .find(|dir| dir.join(ROOT_MARKER).is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("no {ROOT_MARKER} above {}; cd to the repository", here.display()))
}

/// The directory under which this checkout's clusters live, made if missing: `target/clusters`, or
/// a directory under `/var/tmp` when the server's user cannot reach the checkout (a clone in
/// `/root`, for one). Each major version of PostgreSQL has one of its own.
pub fn clusters_dir(user: &ServerUser) -> Result<PathBuf> {
    let near = near_clusters_dir()?;
    user.make_dir_with_parents(&near)?;
    if user.can_enter(&near) {
        return Ok(near);
    }
    let far = far_clusters_dir()?;
    user.make_dir_with_parents(&far)?;
    refuse_foreign(&far)?;
    let far = far.join(clusters_name()?);
    user.make_dir_with_parents(&far)?;
    Ok(far)
}

/// Everything `make clean` has to look at: both possible places, for all major versions.
pub fn all_clusters_dirs() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for parent in [root()?.join("target"), far_clusters_dir()?] {
        let Ok(entries) = fs::read_dir(&parent) else { continue };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", parent.display()))?;
            if entry.file_name().as_bytes().starts_with(CLUSTERS.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The directory outside the checkout that stands in for `target`.
pub fn far_clusters_dir() -> Result<PathBuf> {
    let hash = fnv1a(root()?.as_os_str().as_bytes());
    Ok(PathBuf::from(format!("/var/tmp/tailstream-{hash:016x}")))
}

fn near_clusters_dir() -> Result<PathBuf> {
    Ok(root()?.join("target").join(clusters_name()?))
}

fn clusters_name() -> Result<String> {
    let major = postgres_install::major()?;
    Ok(if major == postgres_install::DEFAULT_MAJOR {
        CLUSTERS.to_owned()
    } else {
        format!("{CLUSTERS}-{major}")
    })
}

/// `/var/tmp` is writable by everybody and the name can be guessed: a directory that somebody else
/// put there must not be trusted with a database.
fn refuse_foreign(dir: &Path) -> Result<()> {
    let owner = fs::symlink_metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        bail!(
            "{} belongs to uid {owner}, not to you; have it removed, or clone into a directory that user postgres can reach",
            dir.display()
        );
    }
    Ok(())
}

/// FNV-1a, 64 bits: the same on every machine and in every version, unlike the standard hasher.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_root_from_a_member_crate() {
        assert!(root().unwrap().join("dev").is_dir());
    }

    #[test]
    fn hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
