//! The server process behind a connection.

use std::fs;

use anyhow::{Context, Result};
use postgres::Client;

/// Its CPU time tells what work costs on a machine that others use as well.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pid: i32,
}

impl Backend {
    pub fn of(client: &mut Client) -> Result<Self> {
        let row =
            client.query_one("SELECT pg_backend_pid()", &[]).context("cannot ask for the server process")?;
        Ok(Self { pid: row.get(0) })
    }

    /// Seconds of CPU time used so far; `None` where the kernel does not tell.
    pub fn cpu_seconds(self) -> Option<f64> {
        let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", self.pid)).ok()?;
        let nanoseconds: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
        Some(nanoseconds as f64 / 1e9)
    }
}
