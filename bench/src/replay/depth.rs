//! The first page of a range against one far into it.

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::pages::Pages;
use crate::context::Context;
use crate::load::ORG;
use crate::payload::Payload;
use crate::results::{Finding, Results};
use crate::screen::number;
use crate::server::OURS;
use crate::statistics::{median, percentile};

/// The number of the far page; the range has just as many.
const DEPTH: usize = 10_000;
/// Pages asked for before the clock runs.
const WARM_UP: usize = 50;

/// The row before a page, found the slow way, and its token: that of a page which begins with it.
const SELECT_ROW: &str = "
    SELECT id, created_at FROM ts_replay($1, $2, $3) ORDER BY created_at, id LIMIT 1 OFFSET $4";
const SELECT_TOKEN: &str = "SELECT id, cursor FROM ts_replay_page($1, $2, $3, page_size => 1)";

/// The payload is what is stored.
pub fn run(context: &Context, results: &mut Results, payload: &Payload) -> Result<()> {
    let page_size = payload.events() / DEPTH;
    let token = token(context, payload, (DEPTH - 1) * page_size)?;
    let repetitions = context.options.size(2_000, 500);
    let mut pages =
        Pages::new(context.server, payload.span(), i32::try_from(page_size)?, payload.events() as u64, 1)?;
    let mut micros = [Vec::new(), Vec::new()];
    for repetition in 0..WARM_UP + repetitions {
        let first = repetition % 2;
        for page in [first, 1 - first] {
            let started = Instant::now();
            let rows = pages.page([None, Some(&*token)][page])?;
            let elapsed = started.elapsed().as_secs_f64() * 1e6;
            ensure!(rows.len() == page_size, "a page has {} rows and not {page_size}", rows.len());
            if repetition >= WARM_UP {
                micros[page].push(elapsed);
            }
        }
    }
    report(results, &micros, page_size);
    Ok(())
}

/// The token of the row with this number, counted from 1.
fn token(context: &Context, payload: &Payload, rows: usize) -> Result<String> {
    let mut client = context.server.connect(OURS)?;
    let (start, end) = payload.span();
    let row = client
        .query_one(SELECT_ROW, &[&ORG, &start, &end, &i64::try_from(rows - 1)?])
        .context("cannot find the row before the far page")?;
    let (id, created_at): (i64, SystemTime) = (row.get(0), row.get(1));
    let row = client.query_one(SELECT_TOKEN, &[&ORG, &created_at, &end]).context("cannot ask for a token")?;
    ensure!(row.get::<_, i64>(0) == id, "the token is that of another row");
    Ok(row.get(1))
}

fn report(results: &mut Results, [near, far]: &[Vec<f64>; 2], page_size: usize) {
    let describe = |micros: &[f64]| json!({ "p50": percentile(micros, 50.0), "p95": percentile(micros, 95.0), "p99": percentile(micros, 99.0) });
    let finding = Finding {
        value: median(near) / median(far),
        ours: format!("{} us", number(median(far))),
        theirs: format!("{} us", number(median(near))),
    };
    let detail = json!({
        "ours": { "what": format!("page {DEPTH}"), "us": describe(far) },
        "theirs": { "what": "page 1", "us": describe(near) },
        "rows": { "page": page_size, "repetitions": near.len() },
    });
    results.add("page_depth_cost", finding, detail);
}
