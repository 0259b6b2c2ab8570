//! Reading a range of one org's events to its end, in one query.

use anyhow::{Context, Result};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Client, Statement};
use std::time::{Instant, SystemTime};

use crate::backend::Backend;
use crate::load::ORG;
use crate::round::{Contender, Measure};

pub const REPLAY: &str = "SELECT * FROM ts_replay($1, $2, $3)";
/// The rows of a replay, asked for by hand.
pub const SELECT: &str = "
    SELECT id, created_at, org_id, host, method, path, status, response_time, response_size,
        user_agent, referrer, ip_address, metadata
    FROM tailstream.events
    WHERE org_id = $1 AND created_at >= $2 AND created_at < $3";
pub const IN_ORDER: &str = " ORDER BY created_at, id";

/// Start and end of a replay.
pub type Span = (SystemTime, SystemTime);

/// Walks a range some times in a row.
pub struct Walk {
    name: String,
    client: Client,
    backend: Backend,
    statement: Statement,
    span: Span,
    expected: u64,
    times: usize,
}

impl Walk {
    /// `sql` takes org, start and end and returns `expected` rows.
    pub fn new(
        mut client: Client,
        name: &str,
        sql: &str,
        span: Span,
        expected: u64,
        times: usize,
    ) -> Result<Self> {
        let backend = Backend::of(&mut client)?;
        let statement = client.prepare(sql).with_context(|| format!("cannot prepare {name}"))?;
        Ok(Self { name: name.to_owned(), client, backend, statement, span, expected, times })
    }

    /// Reads all rows once; returns seconds until the first and until the last.
    pub fn once(&mut self) -> Result<(f64, f64)> {
        let started = Instant::now();
        let parameters: [&(dyn ToSql + Sync); 3] = [&ORG, &self.span.0, &self.span.1];
        let mut rows = self.client.query_raw(&self.statement, parameters)?;
        let mut count = u64::from(rows.next()?.is_some());
        let first = started.elapsed().as_secs_f64();
        while rows.next()?.is_some() {
            count += 1;
        }
        let total = started.elapsed().as_secs_f64();
        anyhow::ensure!(count == self.expected, "{} rows came instead of {}", count, self.expected);
        Ok((first, total))
    }
}

impl Contender for Walk {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    /// Brings everything into memory.
    fn prepare(&mut self) -> Result<()> {
        self.once().map(drop)
    }

    fn run(&mut self) -> Result<Measure> {
        Measure::of(|| {
            for _ in 0..self.times {
                self.once()?;
            }
            Ok(self.expected * self.times as u64)
        })
    }
}
