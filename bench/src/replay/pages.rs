//! Pages of a range, each asked for with the token of the last row before it.

use anyhow::{Context, Result, ensure};
use postgres::{Client, Row, Statement};

use super::walk::Span;
use crate::backend::Backend;
use crate::load::ORG;
use crate::round::{Contender, Measure};
use crate::server::{OURS, Server};

const SELECT_PAGE: &str = "SELECT * FROM ts_replay_page($1, $2, $3, after => $4, page_size => $5)";

/// Walks a range some times in a row.
pub struct Pages {
    client: Client,
    backend: Backend,
    statement: Statement,
    span: Span,
    page_size: i32,
    expected: u64,
    times: usize,
}

impl Pages {
    pub fn new(server: &Server, span: Span, page_size: i32, expected: u64, times: usize) -> Result<Self> {
        let mut client = server.connect(OURS)?;
        let backend = Backend::of(&mut client)?;
        let statement = client.prepare(SELECT_PAGE).context("cannot prepare the pages")?;
        Ok(Self { client, backend, statement, span, page_size, expected, times })
    }

    /// The page after a token, or the first one.
    pub fn page(&mut self, after: Option<&str>) -> Result<Vec<Row>> {
        let (start, end) = self.span;
        Ok(self.client.query(&self.statement, &[&ORG, &start, &end, &after, &self.page_size])?)
    }

    fn walk(&mut self) -> Result<()> {
        let mut walked = 0;
        let mut last: Option<String> = None;
        loop {
            let rows = self.page(last.as_deref())?;
            walked += rows.len() as u64;
            if rows.len() < usize::try_from(self.page_size)? {
                break;
            }
            last = rows.last().map(|row| row.get("cursor"));
        }
        ensure!(walked == self.expected, "{walked} rows came instead of {}", self.expected);
        Ok(())
    }
}

impl Contender for Pages {
    fn name(&self) -> String {
        "ts_replay_page".to_owned()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    /// Brings everything into memory.
    fn prepare(&mut self) -> Result<()> {
        self.walk()
    }

    fn run(&mut self) -> Result<Measure> {
        Measure::of(|| {
            for _ in 0..self.times {
                self.walk()?;
            }
            Ok(self.expected * self.times as u64)
        })
    }
}
