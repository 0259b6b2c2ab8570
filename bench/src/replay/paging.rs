//! One streamed replay, and pages by token, against the plan's pages of 1,000 by OFFSET.

use anyhow::{Context as _, Result, ensure};
use postgres::{Client, Statement};
use serde_json::json;

use super::pages::Pages;
use super::walk::{IN_ORDER, REPLAY, Span, Walk};
use crate::backend::Backend;
use crate::context::Context;
use crate::load::{self, ORG};
use crate::payload::Payload;
use crate::results::Results;
use crate::round::{Contender, Measure, duel};
use crate::server::{OURS, SEED, Server};

const PAGE: i64 = 1_000;
/// The query of the original plan's `chunk(1000)`, page by page.
const SELECT_PAGE: &str = "
    SELECT * FROM log_events WHERE org_id = $1 AND created_at BETWEEN $2 AND $3
    ORDER BY created_at LIMIT $4 OFFSET $5";

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let options = context.options;
    let payload = Payload::recent(context.samples, options.size(200, 50));
    load::ours(&mut context.server.connect(OURS)?, &payload)?;
    load::seed(&mut context.server.connect(SEED)?, &payload)?;
    let (span, expected) = (payload.span(), payload.events() as u64);
    let mut theirs = OffsetPages::new(context.server, span, expected)?;
    let (rounds, times, rows) = (options.size(5, 2), options.size(5, 10), json!({ "range": expected }));
    if options.wants_key("replay_vs_offset_paging") {
        let sql = format!("{REPLAY}{IN_ORDER}");
        let client = context.server.connect(OURS)?;
        let mut ours = Walk::new(client, "ts_replay", &sql, span, expected, times)?;
        let duel = duel(context.server, rounds, &mut ours, &mut theirs)?;
        results.add_duel("replay_vs_offset_paging", "/s", &duel, &rows);
    }
    if options.wants_key("page_vs_offset") {
        let mut ours = Pages::new(context.server, span, i32::try_from(PAGE)?, expected, times)?;
        let duel = duel(context.server, rounds, &mut ours, &mut theirs)?;
        results.add_duel("page_vs_offset", "/s", &duel, &rows);
    }
    Ok(())
}

struct OffsetPages {
    client: Client,
    backend: Backend,
    statement: Statement,
    span: Span,
    expected: u64,
}

impl OffsetPages {
    fn new(server: &Server, span: Span, expected: u64) -> Result<Self> {
        let mut client = server.connect(SEED)?;
        let backend = Backend::of(&mut client)?;
        let statement = client.prepare(SELECT_PAGE).context("cannot prepare the pages")?;
        Ok(Self { client, backend, statement, span, expected })
    }

    fn page(&mut self, offset: i64) -> Result<usize> {
        let (start, end) = self.span;
        let rows = self.client.query(&self.statement, &[&ORG, &start, &end, &PAGE, &offset])?;
        Ok(rows.len())
    }
}

impl Contender for OffsetPages {
    fn name(&self) -> String {
        "OFFSET paging, seed".to_owned()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    /// The last page reads all others as well, so it brings everything into memory.
    fn prepare(&mut self) -> Result<()> {
        self.page(i64::try_from(self.expected)? - PAGE).map(drop)
    }

    fn run(&mut self) -> Result<Measure> {
        Measure::of(|| {
            let mut walked = 0;
            loop {
                let rows = self.page(i64::try_from(walked)?)?;
                walked += rows as u64;
                if rows < usize::try_from(PAGE)? {
                    break;
                }
            }
            ensure!(walked == self.expected, "{walked} rows came instead of {}", self.expected);
            Ok(walked)
        })
    }
}
