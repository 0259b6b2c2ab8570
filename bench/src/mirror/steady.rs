//! Batches sent at a steady rate, and how long after its commit each reaches a reader.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postgres::Client;
use postgres::types::Json;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::batch;
use crate::load::ORG;
use crate::sample::Samples;
use crate::statistics::percentile;

/// Events in a batch.
pub const BATCH: usize = 10;
pub const EVENTS_PER_SECOND: usize = 5_000;
const INTERVAL: Duration = Duration::from_micros((1_000_000 * BATCH / EVENTS_PER_SECOND) as u64);

/// The batches of one connection.
pub struct Sent {
    /// When the answer to each was there, and so its commit was known.
    committed: Vec<Instant>,
    /// How much later than planned each was begun.
    late_ms: Vec<f64>,
    seconds: f64,
}

impl Sent {
    /// Sends batches by a schedule that waits for no answer: one that takes long makes the next ones
    /// late, and what they wait then is not hidden.
    pub fn send(client: &mut Client, samples: &Samples, batches: usize) -> Result<Self> {
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
        Ok(Self { committed, late_ms, seconds: started.elapsed().as_secs_f64() })
    }

    pub fn batches(&self) -> usize {
        self.committed.len()
    }
}

/// The batch with its number in its last event.
fn numbered(batch: &RawValue, number: usize) -> Result<Box<RawValue>> {
    let events = batch.get().strip_suffix("}]").context("a batch is no array of objects")?;
    RawValue::from_string(format!("{events},\"batch\":{number}}}]")).context("a batch is no JSON")
}

/// When the last event of each batch arrived.
#[derive(Default)]
pub struct Arrivals(Vec<Instant>);

impl Arrivals {
    /// Notes an event if it is the last one of its batch; `event` is what was sent, or its metadata.
    pub fn note(&mut self, at: Instant, event: &Value) -> Result<()> {
        if let Some(number) = event["batch"].as_u64() {
            ensure!(number == self.0.len() as u64, "batch {number} is out of order");
            self.0.push(at);
        }
        Ok(())
    }

    /// The result with its details.
    pub fn lags(&self, sent: &Sent) -> Result<(Vec<f64>, Value)> {
        let (arrived, batches) = (self.0.len(), sent.batches());
        ensure!(arrived == batches, "{arrived} of {batches} batches arrived");
        let pairs = sent.committed.iter().zip(&self.0);
        let first = pairs.clone().filter(|(committed, arrived)| arrived < committed).count();
        // The reader may have an event before its sender has the answer; that counts as no lag.
        let lags: Vec<f64> = pairs
            .map(|(committed, arrived)| arrived.saturating_duration_since(*committed).as_secs_f64() * 1e3)
            .collect();
        let at = |percent| percentile(&lags, percent);
        let detail = json!({
            "ms": { "p50": at(50.0), "p95": at(95.0), "p99": at(99.0), "max": at(100.0) },
            "arrived_before_the_answer_of_ts_ingest": first,
            "rows": { "batches": batches, "events_in_a_batch": BATCH },
            "events_per_second": { "planned": EVENTS_PER_SECOND, "reached": (batches * BATCH) as f64 / sent.seconds },
            "begun_late_ms": { "p50": percentile(&sent.late_ms, 50.0), "p99": percentile(&sent.late_ms, 99.0) },
        });
        Ok((lags, detail))
    }
}
