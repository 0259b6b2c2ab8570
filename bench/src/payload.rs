//! Batches in the form in which each contender sends them, made before the clock runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use postgres::types::Json;
use serde_json::value::RawValue;
use tailstream_devkit::event::{json_array, now_micros, rfc3339};

use crate::sample::{Sample, Samples};

/// Events in a batch.
pub const BATCH: usize = 1_000;
pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3_600 * SECOND;
/// Time for a run to end before its oldest event is older than three hours.
const MARGIN: i64 = 600 * SECOND;

/// Batches of events evenly spread over a span of time, oldest first.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    samples: &'a Samples,
    start: i64,
    end: i64,
    batches: usize,
}

impl<'a> Payload<'a> {
    /// Over the last three hours.
    pub fn recent(samples: &'a Samples, batches: usize) -> Self {
        let (start, end) = Self::recent_span();
        Self::within(samples, start, end, batches)
    }

    /// The last three hours, less a margin at both ends (microseconds since the epoch).
    pub fn recent_span() -> (i64, i64) {
        let now = now_micros();
        (now - 3 * HOUR + MARGIN, now - MARGIN)
    }

    /// From `start` to before `end` (microseconds since the epoch).
    pub fn within(samples: &'a Samples, start: i64, end: i64, batches: usize) -> Self {
        Self { samples, start, end, batches }
    }

    /// Start and end as parameters of a query.
    pub fn span(&self) -> (SystemTime, SystemTime) {
        (system_time(self.start), system_time(self.end))
    }

    pub fn batches(&self) -> usize {
        self.batches
    }

    pub fn events(&self) -> usize {
        self.batches * BATCH
    }

    /// One batch as a JSON array.
    pub fn json(&self, batch: usize) -> Result<Box<RawValue>> {
        let objects = self
            .rows(batch)
            .map(|(created_at, sample)| sample.to_json(created_at, address(sample).as_deref()))
            .collect::<Result<Vec<_>>>()?;
        RawValue::from_string(json_array(&objects)).context("a batch is no JSON")
    }

    /// One batch as newline-delimited JSON.
    pub fn ndjson(&self, batch: usize) -> Result<String> {
        let objects = self
            .rows(batch)
            .map(|(created_at, sample)| sample.to_json(created_at, address(sample).as_deref()))
            .collect::<Result<Vec<_>>>()?;
        Ok(objects.join("\n"))
    }

    /// One batch for `COPY tailstream.events FROM STDIN`: all 14 columns, in the table's order.
    pub fn copy_ours(&self, batch: usize, org: &str, tier: i16) -> Vec<u8> {
        let mut text = String::new();
        for (offset, (created_at, sample)) in self.rows(batch).enumerate() {
            // The ids that ts_ingest would give.
            let id = ((batch as u64 + 1) << 16) | offset as u64;
            text += &format!("{id}\t{}\t{org}", rfc3339(created_at));
            push_columns(&mut text, sample);
            text += &format!("\t\\N\t{tier}\n");
        }
        text.into_bytes()
    }

    /// One batch for COPY into the plan's table: all columns but the id, which is its default.
    pub fn copy_seed(&self, batch: usize, org: &str) -> Result<Vec<u8>> {
        let mut text = String::new();
        for (created_at, sample) in self.rows(batch) {
            text += &format!("{}\t{org}", rfc3339(created_at));
            push_columns(&mut text, sample);
            let whole = sample.to_json(created_at, address(sample).as_deref())?;
            push_text(&mut text, Some(&whole));
            text.push('\n');
        }
        Ok(text.into_bytes())
    }

    /// One batch as a single INSERT with the values in its text, as many object-relational mappers send it.
    pub fn insert(&self, batch: usize, org: &str) -> String {
        let mut text = "INSERT INTO tailstream.log_events (created_at, org_id, host, method, path, status,
            response_time, response_size, user_agent, referrer, ip_address) VALUES "
            .to_owned();
        for (offset, (created_at, sample)) in self.rows(batch).enumerate() {
            let separator = if offset == 0 { "(" } else { ",(" };
            text += &format!("{separator}'{}','{org}'", rfc3339(created_at));
            let status = sample.status.to_string();
            for value in [Some(&*sample.host), Some(&*sample.method), Some(&*sample.path)] {
                push_literal(&mut text, value);
            }
            text += &format!(",{status}");
            for number in [
                sample.response_time.map(|time| time.to_string()),
                sample.response_size.map(|size| size.to_string()),
            ] {
                text += &format!(",{}", number.as_deref().unwrap_or("NULL"));
            }
            for value in
                [sample.user_agent.as_deref(), sample.referrer.as_deref(), address(sample).as_deref()]
            {
                push_literal(&mut text, value);
            }
            text.push(')');
        }
        text + " RETURNING id"
    }

    /// One batch as parameters of single-row INSERTs.
    pub fn parameters(&self, batch: usize) -> Result<Vec<Parameters<'a>>> {
        self.rows(batch)
            .map(|(created_at, sample)| {
                let whole = sample.to_json(created_at, address(sample).as_deref())?;
                Ok(Parameters {
                    created_at: system_time(created_at),
                    sample,
                    response_time: sample.response_time.and_then(|time| i32::try_from(time).ok()),
                    response_size: sample.response_size.and_then(|size| i64::try_from(size).ok()),
                    metadata: Json(RawValue::from_string(whole).context("an event is no JSON")?),
                })
            })
            .collect()
    }

    fn rows(&self, batch: usize) -> impl Iterator<Item = (i64, &'a Sample)> + use<'a> {
        let (start, samples) = (self.start, self.samples);
        let step = (self.end - self.start) as f64 / self.events().max(1) as f64;
        (batch * BATCH..(batch + 1) * BATCH)
            .map(move |index| (start + (step * index as f64) as i64, samples.get(index)))
    }
}

/// One row of the plan's table, less org and id.
pub struct Parameters<'a> {
    pub created_at: SystemTime,
    pub sample: &'a Sample,
    pub response_time: Option<i32>,
    pub response_size: Option<i64>,
    pub metadata: Json<Box<RawValue>>,
}

fn system_time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

fn address(sample: &Sample) -> Option<String> {
    sample.ip_address.map(|address| address.to_string())
}

/// The columns from host to ip_address, which both tables have in the same order.
fn push_columns(text: &mut String, sample: &Sample) {
    push_text(text, Some(&sample.host));
    push_text(text, Some(&sample.method));
    push_text(text, Some(&sample.path));
    push_text(text, Some(&sample.status.to_string()));
    push_text(text, sample.response_time.map(|time| time.to_string()).as_deref());
    push_text(text, sample.response_size.map(|size| size.to_string()).as_deref());
    push_text(text, sample.user_agent.as_deref());
    push_text(text, sample.referrer.as_deref());
    push_text(text, address(sample).as_deref());
}

/// A comma and a value as an SQL literal.
fn push_literal(text: &mut String, value: Option<&str>) {
    match value {
        Some(value) => *text += &format!(",'{}'", value.replace('\'', "''")),
        None => *text += ",NULL",
    }
}

/// A tab and a value in the text format of COPY.
fn push_text(text: &mut String, value: Option<&str>) {
    text.push('\t');
    let Some(value) = value else {
        text.push_str("\\N");
        return;
    };
    for char in value.chars() {
        match char {
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            _ => text.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        Samples::load(None).unwrap()
    }

    #[test]
    fn copy_escapes_what_it_must() {
        let mut text = String::new();
        push_text(&mut text, Some("a\tb\\c\nd\re"));
        push_text(&mut text, None);
        assert_eq!(text, "\ta\\tb\\\\c\\nd\\re\t\\N");
    }

    #[test]
    fn rows_have_the_columns_of_their_tables() {
        let samples = samples();
        let payload = Payload::within(&samples, 0, HOUR, 2);
        let columns = |text: &[u8]| {
            let text = String::from_utf8(text.to_vec()).unwrap();
            let counts: Vec<usize> = text.lines().map(|line| line.split('\t').count()).collect();
            assert_eq!(counts.len(), BATCH);
            assert!(counts.iter().all(|count| *count == counts[0]));
            counts[0]
        };
        assert_eq!(columns(&payload.copy_ours(1, "o", 1)), 14);
        assert_eq!(columns(&payload.copy_seed(1, "o").unwrap()), 12);
        assert_eq!(payload.parameters(1).unwrap().len(), BATCH);
        assert_eq!(payload.insert(1, "o").matches(",'o',").count(), BATCH);
    }

    #[test]
    fn literals_escape_what_they_must() {
        let mut text = String::new();
        push_literal(&mut text, Some("a'b\\c"));
        push_literal(&mut text, None);
        assert_eq!(text, ",'a''b\\c',NULL");
    }

    #[test]
    fn times_go_on_from_batch_to_batch() {
        let samples = samples();
        let payload = Payload::within(&samples, 0, HOUR, 2);
        let times: Vec<i64> = (0..2).flat_map(|batch| payload.rows(batch)).map(|(time, _)| time).collect();
        assert!(times.is_sorted() && times[0] == 0 && times[2 * BATCH - 1] < HOUR);
        let events: Vec<serde_json::Value> = serde_json::from_str(payload.json(0).unwrap().get()).unwrap();
        assert_eq!(events.len(), BATCH);
        assert_eq!(payload.ndjson(0).unwrap().lines().count(), BATCH);
    }
}
