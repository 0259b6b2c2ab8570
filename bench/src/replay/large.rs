//! A replay of three busy hours of one org, in one query and by pages.

use anyhow::Result;

use super::depth;
use super::walk::{IN_ORDER, REPLAY, Walk};
use crate::context::Context;
use crate::load;
use crate::payload::Payload;
use crate::results::Results;
use crate::server::OURS;
use crate::statistics::median;

const ROUNDS: usize = 5;

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let payload = Payload::recent(context.samples, context.options.size(1_000, 200));
    load::ours(&mut context.server.connect(OURS)?, &payload)?;
    if context.options.wants_key("replay_large") {
        whole(context, results, &payload)?;
    }
    if context.options.wants_key("page_depth_cost") {
        depth::run(context, results, &payload)?;
    }
    Ok(())
}

/// Seconds until the first and until the last row.
fn whole(context: &Context, results: &mut Results, payload: &Payload) -> Result<()> {
    let sql = format!("{REPLAY}{IN_ORDER}");
    let events = payload.events();
    let client = context.server.connect(OURS)?;
    let mut walk = Walk::new(client, "ts_replay", &sql, payload.span(), events as u64, 1)?;
    walk.once()?;
    let rounds = (0..ROUNDS).map(|_| walk.once()).collect::<Result<Vec<_>>>()?;
    let (first, total): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
    results.add_absolute(&format!("replay_{events}_first_row_s"), median(&first));
    results.add_absolute(&format!("replay_{events}_total_s"), median(&total));
    Ok(())
}
