//! How long after its commit an event reaches a reader that waits in XREAD.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use postgres::Client;
use postgres::types::Json;
use redis::Connection;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Mirror, batch};
use crate::comparison::Context;
use crate::load::{ORG, register};
use crate::results::{Finding, Results};
use crate::sample::Samples;
use crate::statistics::percentile;

pub const DATABASE: &str = "mirror_lag";
/// Events in a batch.
const BATCH: usize = 10;
const EVENTS_PER_SECOND: usize = 5_000;
const INTERVAL: Duration = Duration::from_micros((1_000_000 * BATCH / EVENTS_PER_SECOND) as u64);
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

/// What became of the batches of one connection.
struct Sent {
    /// When the answer to each was there, and so its commit was known.
    committed: Vec<Instant>,
    /// How much later than planned each was begun.
    late_ms: Vec<f64>,
    seconds: f64,
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let batches = context.options.size(20, 4) * EVENTS_PER_SECOND / BATCH;
    let mirror = Mirror::start(context.server, DATABASE)?;
    let mut client = mirror.connect()?;
    register(&mut client)?;
    send(&mut client, context.samples, WARM_UP)?;
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
        let sent = send(&mut client, context.samples, batches)?;
        let received = reader.join().map_err(|_| anyhow!("the reader died"))??;
        Ok((sent, received))
    })?;
    mirror.verify(ORG)?;
    report(results, &sent, &arrivals(&received, batches)?);
    drop(client);
    mirror.stop()
}

/// Sends batches by a schedule that waits for no answer: one that takes long makes the next ones
/// late, and what they wait then is not hidden.
fn send(client: &mut Client, samples: &Samples, batches: usize) -> Result<Sent> {
    let ingest = client.prepare("SELECT accepted FROM ts_ingest($1, $2)")?;
    let (mut committed, mut late_ms) = (Vec::new(), Vec::new());
    let started = Instant::now();
    let mut planned = started;
    for number in 0..batches {
        let events = numbered(&batch(samples, number * BATCH, BATCH)?, number)?;
        thread::sleep(planned.saturating_duration_since(Instant::now()));
        late_ms.push(planned.elapsed().as_secs_f64() * 1e3);
        client.query_one(&ingest, &[&ORG, &Json(&*events)])?;
        committed.push(Instant::now());
        planned += INTERVAL;
    }
    Ok(Sent { committed, late_ms, seconds: started.elapsed().as_secs_f64() })
}

/// The batch with its number in its last event.
fn numbered(batch: &RawValue, number: usize) -> Result<Box<RawValue>> {
    let events = batch.get().strip_suffix("}]").context("a batch is no array of objects")?;
    RawValue::from_string(format!("{events},\"batch\":{number}}}]")).context("a batch is no JSON")
}

/// Reads so many entries, as they come.
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

/// When the last event of each batch arrived.
fn arrivals(received: &[Received], batches: usize) -> Result<Vec<Instant>> {
    let mut arrivals = Vec::with_capacity(batches);
    for answer in received {
        for (id, fields) in &answer.entries {
            let data = fields.chunks_exact(2).find(|field| field[0] == "data");
            let event: Value =
                serde_json::from_str(&data.with_context(|| format!("entry {id} has no data"))?[1])?;
            // Unknown members of an event are kept below `metadata`.
            let number = event["batch"].as_u64().or(event["metadata"]["batch"].as_u64());
            if let Some(number) = number {
                ensure!(number == arrivals.len() as u64, "batch {number} is out of order");
                arrivals.push(answer.at);
            }
        }
    }
    ensure!(arrivals.len() == batches, "{} of {batches} batches arrived", arrivals.len());
    Ok(arrivals)
}

fn report(results: &mut Results, sent: &Sent, arrivals: &[Instant]) {
    let pairs = sent.committed.iter().zip(arrivals);
    let first = pairs.clone().filter(|(committed, arrived)| arrived < committed).count();
    // The reader may have an event before its sender has the answer; that counts as no lag.
    let lags: Vec<f64> = pairs
        .map(|(committed, arrived)| arrived.saturating_duration_since(*committed).as_secs_f64() * 1e3)
        .collect();
    let events_per_second = (arrivals.len() * BATCH) as f64 / sent.seconds;
    let detail = json!({
        "ms": { "p50": percentile(&lags, 50.0), "p95": percentile(&lags, 95.0), "p99": percentile(&lags, 99.0),
                "max": percentile(&lags, 100.0) },
        "arrived_before_the_answer_of_ts_ingest": first,
        "rows": { "batches": arrivals.len(), "events_in_a_batch": BATCH },
        "events_per_second": { "planned": EVENTS_PER_SECOND, "reached": events_per_second },
        "begun_late_ms": { "p50": percentile(&sent.late_ms, 50.0), "p99": percentile(&sent.late_ms, 99.0) },
    });
    for (key, percent, detail) in [
        ("mirror_lag_ms_p50", 50.0, json!({ "see": "mirror_lag_ms_p99" })),
        ("mirror_lag_ms_p99", 99.0, detail),
    ] {
        let value = percentile(&lags, percent);
        let finding = Finding { value, ours: format!("{value:.3} ms"), theirs: String::new() };
        results.add(key, finding, detail);
    }
}
