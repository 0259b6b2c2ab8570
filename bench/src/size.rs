//! The size of an event on disk.

use anyhow::{Context as _, Result};
use postgres::Client;
use serde_json::{Value, json};

use crate::context::Context;
use crate::load;
use crate::payload::Payload;
use crate::results::{Finding, Results};
use crate::server::{OURS, SEED};

/// Tables, indexes and TOAST of all chunks.
const SIZES: &str = "
    SELECT coalesce(sum(pg_table_size(chunk)), 0)::bigint, coalesce(sum(pg_indexes_size(chunk)), 0)::bigint
    FROM show_chunks($1::text::regclass) AS chunk";

struct Size {
    table: f64,
    indexes: f64,
}

impl Size {
    /// Bytes per event.
    fn of(client: &mut Client, hypertable: &str, events: usize) -> Result<Self> {
        let row = client
            .query_one(SIZES, &[&hypertable])
            .with_context(|| format!("cannot ask for the size of {hypertable}"))?;
        let per_event = |column: usize| row.get::<_, i64>(column) as f64 / events as f64;
        Ok(Self { table: per_event(0), indexes: per_event(1) })
    }

    fn total(&self) -> f64 {
        self.table + self.indexes
    }

    fn to_json(&self) -> Value {
        json!({ "table": self.table, "indexes": self.indexes, "total": self.total() })
    }
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let payload = Payload::recent(context.samples, context.options.size(300, 100));
    let events = payload.events();
    let mut ours = context.server.connect(OURS)?;
    let mut seed = context.server.connect(SEED)?;
    load::ours(&mut ours, &payload)?;
    load::seed(&mut seed, &payload)?;
    let our_size = Size::of(&mut ours, "tailstream.events", events)?;
    let seed_size = Size::of(&mut seed, "log_events", events)?;
    let ledger = Size::of(&mut ours, "tailstream.batches", events)?;
    let finding = Finding {
        value: seed_size.total() / our_size.total(),
        ours: format!("{:.0} bytes", our_size.total()),
        theirs: format!("{:.0} bytes", seed_size.total()),
    };
    let detail = json!({
        "ours": our_size.to_json(),
        "theirs": seed_size.to_json(),
        "ledger": ledger.to_json(),
        "rows": { "events": events },
    });
    results.add("bytes_seed_vs_ours", finding, detail);
    Ok(())
}
