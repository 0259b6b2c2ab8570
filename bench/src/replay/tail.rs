//! How long after its commit an event reaches a durable cursor that waits for it.

use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use postgres::types::Json;
use postgres::{Client, Row};
use serde_json::Value;

use crate::context::Context;
use crate::load::{ORG, register};
use crate::mirror::Mirror;
use crate::mirror::steady::{Arrivals, BATCH, EVENTS_PER_SECOND, Sent};
use crate::results::{Finding, Results};
use crate::statistics::percentile;

pub const DATABASE: &str = "cursor_tail";
const WARM_UP: usize = 100;
const CREATE: &str = "SELECT ts_cursor_create('tail', $1, 'now')";
const FETCH: &str = "SELECT * FROM ts_cursor_fetch('tail', 1000, timeout => '5 s', auto_ack => true)";

/// The result of one call, and when it arrived.
struct Received {
    at: Instant,
    rows: Vec<Row>,
}

/// The mirror is at work as well, as it is where there are live viewers.
pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let batches = context.options.size(20, 4) * EVENTS_PER_SECOND / BATCH;
    let mirror = Mirror::start(context.server, DATABASE)?;
    let (mut sender, mut reader) = (mirror.connect()?, mirror.connect()?);
    register(&mut sender)?;
    Sent::send(&mut sender, context.samples, WARM_UP)?;
    mirror.wait_until_sent()?;
    context.server.checkpoint()?;
    reader.execute(CREATE, &[&ORG]).context("cannot create a cursor")?;
    let (sent, received) = thread::scope(|scope| -> Result<_> {
        let reading = scope.spawn(|| read(&mut reader, batches * BATCH));
        let sent = Sent::send(&mut sender, context.samples, batches)?;
        let received = reading.join().map_err(|_| anyhow!("the reader died"))??;
        Ok((sent, received))
    })?;
    report(results, &sent, &received)?;
    drop((sender, reader));
    mirror.stop()
}

/// Reads this number of events as they arrive.
fn read(client: &mut Client, count: usize) -> Result<Vec<Received>> {
    let fetch = client.prepare(FETCH).context("cannot prepare the fetch")?;
    let mut all = Vec::new();
    let mut read = 0;
    while read < count {
        let rows = client.query(&fetch, &[])?;
        let at = Instant::now();
        ensure!(!rows.is_empty(), "{read} of {count} events came, and then none for 5 s");
        read += rows.len();
        all.push(Received { at, rows });
    }
    Ok(all)
}

fn report(results: &mut Results, sent: &Sent, received: &[Received]) -> Result<()> {
    let mut arrivals = Arrivals::default();
    for Received { at, rows } in received {
        for row in rows {
            if let Some(Json(metadata)) = row.get::<_, Option<Json<Value>>>("metadata") {
                arrivals.note(*at, &metadata)?;
            }
        }
    }
    let (lags, detail) = arrivals.lags(sent)?;
    let value = percentile(&lags, 99.0);
    let finding = Finding { value, ours: format!("{value:.3} ms"), theirs: String::new() };
    results.add("cursor_tail_lag_ms_p99", finding, detail);
    results.add_absolute("cursor_tail_lag_ms_p50", percentile(&lags, 50.0));
    Ok(())
}
