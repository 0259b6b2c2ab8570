//! How long after its commit an event reaches a reader that waits in XREAD.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use redis::Connection;
use serde_json::json;

use super::Mirror;
use crate::context::Context;
use crate::load::{ORG, register};
use crate::mirror::steady::{Arrivals, BATCH, EVENTS_PER_SECOND, Sent};
use crate::results::{Finding, Results};
use crate::statistics::percentile;

pub const DATABASE: &str = "mirror_lag";
const WARM_UP: usize = 100;
/// A reader that gets nothing for so long will get nothing any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Id, and names and values of the fields.
type Entry = (String, Vec<String>);

/// One answer to XREAD, and when it was there.
struct Received {
    at: Instant,
    entries: Vec<Entry>,
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let batches = context.options.size(20, 4) * EVENTS_PER_SECOND / BATCH;
    let mirror = Mirror::start(context.server, DATABASE)?;
    let mut client = mirror.connect()?;
    register(&mut client)?;
    Sent::send(&mut client, context.samples, WARM_UP)?;
    mirror.wait_until_sent()?;
    context.server.checkpoint()?;

    let stream = mirror.stream(ORG)?;
    let mut connection = mirror.redis().connect()?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let (last_id, _) = redis::cmd("XREVRANGE")
        .arg(&[&stream, "+", "-", "COUNT", "1"])
        .query::<Vec<Entry>>(&mut connection)?
        .pop()
        .context("the stream is empty")?;
    let (sent, received) = thread::scope(|scope| -> Result<_> {
        let reader = scope.spawn(|| read(&mut connection, &stream, last_id, batches * BATCH));
        let sent = Sent::send(&mut client, context.samples, batches)?;
        let received = reader.join().map_err(|_| anyhow!("the reader died"))??;
        Ok((sent, received))
    })?;
    mirror.verify(ORG)?;
    report(results, &sent, &received)?;
    drop(client);
    mirror.stop()
}

/// Reads this number of entries as they arrive.
fn read(
    connection: &mut Connection,
    stream: &str,
    mut last_id: String,
    count: usize,
) -> Result<Vec<Received>> {
    let mut all = Vec::new();
    let mut read = 0;
    while read < count {
        let mut streams: Vec<(String, Vec<Entry>)> = redis::cmd("XREAD")
            .arg(&["BLOCK", "0", "STREAMS", stream, &last_id])
            .query(connection)
            .with_context(|| format!("{read} of {count} entries came"))?;
        let at = Instant::now();
        let (_, entries) = streams.pop().context("XREAD of one stream names none")?;
        last_id.clone_from(&entries.last().context("XREAD returned nothing")?.0);
        read += entries.len();
        all.push(Received { at, entries });
    }
    Ok(all)
}

fn report(results: &mut Results, sent: &Sent, received: &[Received]) -> Result<()> {
    let mut arrivals = Arrivals::default();
    for answer in received {
        for (id, fields) in &answer.entries {
            let data = fields.chunks_exact(2).find(|field| field[0] == "data");
            let data = data.with_context(|| format!("entry {id} has no data"))?;
            arrivals.note(answer.at, &serde_json::from_str(&data[1])?)?;
        }
    }
    let (lags, detail) = arrivals.lags(sent)?;
    for (key, percent, detail) in [
        ("mirror_lag_ms_p50", 50.0, json!({ "see": "mirror_lag_ms_p99" })),
        ("mirror_lag_ms_p99", 99.0, detail),
    ] {
        let value = percentile(&lags, percent);
        let finding = Finding { value, ours: format!("{value:.3} ms"), theirs: String::new() };
        results.add(key, finding, detail);
    }
    Ok(())
}
