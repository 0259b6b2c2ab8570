//! `ts_replay` against a SELECT by hand of the same rows from the same table.

use anyhow::Result;
use serde_json::json;

use super::walk::{IN_ORDER, REPLAY, SELECT, Span, Walk};
use crate::context::Context;
use crate::load;
use crate::payload::Payload;
use crate::results::Results;
use crate::round::duel;
use crate::server::OURS;
use crate::statistics::median;

/// Rows of a first page.
const PAGE: u64 = 10;

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let options = context.options;
    let payload = Payload::recent(context.samples, options.size(200, 50));
    load::ours(&mut context.server.connect(OURS)?, &payload)?;
    let (rounds, times) = (options.size(9, 3), options.size(5, 10));
    let (span, expected) = (payload.span(), payload.events() as u64);
    for (key, order) in [(Some("replay_vs_select"), IN_ORDER), (None, "")] {
        let mut ours = walk(context, "ts_replay", &format!("{REPLAY}{order}"), span, expected, times)?;
        let mut theirs = walk(context, "SELECT", &format!("{SELECT}{order}"), span, expected, times)?;
        let duel = duel(context.server, rounds, &mut ours, &mut theirs)?;
        match key {
            Some(key) => results.add_duel(key, "/s", &duel, &json!({ "range": expected })),
            None => results.add_absolute("replay_unordered_vs_select_ratio", duel.ratio()),
        }
    }
    first_page(context, results, span)
}

fn walk(context: &Context, name: &str, sql: &str, span: Span, rows: u64, times: usize) -> Result<Walk> {
    Walk::new(context.server.connect(OURS)?, name, sql, span, rows, times)
}

/// The first ten rows of the range, as a viewer sees them.
fn first_page(context: &Context, results: &mut Results, span: Span) -> Result<()> {
    let page = |sql: &str| format!("{sql}{IN_ORDER} LIMIT {PAGE}");
    let mut ours = walk(context, "ts_replay", &page(REPLAY), span, PAGE, 1)?;
    let mut theirs = walk(context, "SELECT", &page(SELECT), span, PAGE, 1)?;
    let mut micros = [Vec::new(), Vec::new()];
    for _ in 0..context.options.size(500, 100) {
        for (walk, micros) in [&mut ours, &mut theirs].into_iter().zip(&mut micros) {
            micros.push(walk.once()?.1 * 1e6);
        }
    }
    results.add_absolute("replay_first_10_p50_us", median(&micros[0]));
    results.add_absolute("select_first_10_p50_us", median(&micros[1]));
    Ok(())
}
