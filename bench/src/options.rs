//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::key::{ABSOLUTE, KEYS};

#[derive(Debug, Parser)]
#[command(
    name = "tailstream-bench",
    about = "Compares Tailstream with what it replaces, side by side on one private server"
)]
pub struct Options {
    /// Measure these keys only
    #[arg(long, value_delimiter = ',', value_name = "KEY", value_parser = known_key)]
    pub only: Vec<String>,
    /// Fewer and smaller rounds: minutes instead of a quarter of an hour, and less exact
    #[arg(long)]
    pub quick: bool,
    /// Fail if a figure does not reach what it must
    #[arg(long)]
    pub check: bool,
    /// The access log (common or combined format, also gzip) whose events are stored; made-up traffic without it
    #[arg(long, env = "TAILSTREAM_BENCH_LOG", value_name = "FILE")]
    pub log: Option<PathBuf>,
}

impl Options {
    /// Whether any of these keys is asked for.
    pub fn wants(&self, keys: &[&str]) -> bool {
        self.only.is_empty() || keys.iter().any(|key| self.wants_key(key))
    }

    pub fn wants_key(&self, key: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == key)
    }

    /// The size of something in a full run, or in a quick one.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn known_key(key: &str) -> Result<String, String> {
    let all: Vec<&str> = KEYS.iter().map(|known| known.key).chain(ABSOLUTE).collect();
    if all.contains(&key) {
        return Ok(key.to_owned());
    }
    Err(format!("keys are {}", all.join(", ")))
}
