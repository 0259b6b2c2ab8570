//! Where PostgreSQL itself is installed.

use std::env;
use std::path::PathBuf;

/// The directory of PostgreSQL's programs. Debian's place for version 17, unless
/// `TAILSTREAM_PG_BIN` names another one.
pub fn bin_dir() -> PathBuf {
    env::var_os("TAILSTREAM_PG_BIN")
        .map_or_else(|| PathBuf::from("/usr/lib/postgresql/17/bin"), PathBuf::from)
}

/// One of PostgreSQL's programs, e.g. `initdb`.
pub fn program(name: &str) -> PathBuf {
    bin_dir().join(name)
}
