//! Which PostgreSQL is built for and run, and where it is installed.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

/// The major version unless `TAILSTREAM_PG_MAJOR` names another one.
pub const DEFAULT_MAJOR: &str = "17";

/// The major version of PostgreSQL that is built for and run: that of `TAILSTREAM_PG_BIN` if it is set, else
/// `TAILSTREAM_PG_MAJOR`.
pub fn major() -> Result<String> {
    if env::var_os("TAILSTREAM_PG_BIN").is_none() {
        return Ok(wanted_major());
    }
    let version = ask_pg_config("--version")?;
    let number = version.strip_prefix("PostgreSQL ").unwrap_or_default();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then_some(digits).with_context(|| format!("pg_config says that it is {version:?}"))
}

fn wanted_major() -> String {
    env::var("TAILSTREAM_PG_MAJOR")
        .ok()
        .filter(|major| !major.is_empty())
        .unwrap_or_else(|| DEFAULT_MAJOR.to_owned())
}

/// The directory of PostgreSQL's programs: `TAILSTREAM_PG_BIN`, or Debian's directory for the major version.
pub fn bin_dir() -> PathBuf {
    env::var_os("TAILSTREAM_PG_BIN")
        .map_or_else(|| PathBuf::from(format!("/usr/lib/postgresql/{}/bin", wanted_major())), PathBuf::from)
}

/// One of PostgreSQL's programs, for example `initdb`.
pub fn program(name: &str) -> PathBuf {
    bin_dir().join(name)
}

/// What `pg_config` answers to an option.
pub fn ask_pg_config(option: &str) -> Result<String> {
    let pg_config = program("pg_config");
    let output = Command::new(&pg_config)
        .arg(option)
        .output()
        .with_context(|| format!("cannot run {}; run dev/setup.sh", pg_config.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
