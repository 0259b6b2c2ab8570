//! `ts_ingest` against other ways to store the same events.

use anyhow::Result;
use serde_json::json;

use super::contender::Store;
use crate::context::Context;
use crate::payload::Payload;
use crate::results::Results;
use crate::round::duel;
use crate::server::Server;

const KEYS: [&str; 4] =
    ["ingest_vs_copy_same", "ingest_vs_copy_seed", "ingest_vs_insert_json", "ingest_vs_row_inserts"];

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let options = context.options;
    let rounds = options.size(7, 3);
    let payload = Payload::recent(context.samples, options.size(400, 150));
    let few = Payload::recent(context.samples, options.size(4, 2));
    let mut ours = Store::ts_ingest(context.server, payload)?;
    for key in KEYS {
        if !options.wants_key(key) {
            continue;
        }
        let (mut theirs, theirs_events) = theirs(context.server, key, payload, few)?;
        let duel = duel(context.server, rounds, &mut ours, &mut theirs)?;
        let rows = json!({ "ours": payload.events(), "theirs": theirs_events });
        results.add_duel(key, "/s", &duel, &rows);
    }
    if options.only.is_empty() {
        let mut ndjson = Store::ts_ingest_ndjson(context.server, payload)?;
        let duel = duel(context.server, rounds, &mut ndjson, &mut ours)?;
        results.add_absolute("ingest_ndjson_vs_json_ratio", duel.ratio());
    }
    Ok(())
}

/// The contender of a key, and how many events it stores.
fn theirs<'a>(
    server: &Server,
    key: &str,
    payload: Payload<'a>,
    few: Payload<'a>,
) -> Result<(Store<'a>, usize)> {
    let (store, events) = match key {
        "ingest_vs_copy_same" => (Store::copy_same(server, payload), payload.events()),
        "ingest_vs_copy_seed" => (Store::copy_seed(server, payload), payload.events()),
        "ingest_vs_insert_json" => (Store::insert_json(server, payload), payload.events()),
        _ => (Store::row_inserts(server, few), few.events()),
    };
    Ok((store?, events))
}

/// INSERTs of 1,000 rows into the view, as object-relational mappers send them, against `ts_ingest`.
pub fn bulk(context: &Context, results: &mut Results) -> Result<()> {
    let options = context.options;
    let (rounds, payload) = (options.size(7, 3), Payload::recent(context.samples, options.size(100, 50)));
    let mut ingest = Store::ts_ingest(context.server, payload)?;
    let rows = json!({ "ours": payload.events(), "theirs": payload.events() });
    let mut text = Store::bulk_insert(context.server, payload)?;
    let by_text = duel(context.server, rounds, &mut text, &mut ingest)?;
    results.add_duel("bulk_insert_vs_ingest", "/s", &by_text, &rows);
    let mut arrays = Store::array_insert(context.server, payload)?;
    let by_arrays = duel(context.server, rounds, &mut arrays, &mut ingest)?;
    results.add_absolute("bulk_insert_of_arrays_vs_ingest_ratio", by_arrays.ratio());
    Ok(())
}
