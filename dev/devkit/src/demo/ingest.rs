//! The demo's ingest: batches of 1,000 events over one connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use postgres::Client;
use postgres::types::Json;
use serde_json::value::RawValue;
use tailstream_devkit::event::json_array;

use super::input::OrgEvents;
use super::screen::{Screen, grouped};

pub const BATCH: usize = 1_000;

/// The summed results of the calls of one org.
#[derive(Default)]
pub struct Tally {
    pub batches: u64,
    pub accepted: i64,
    pub rejected: i64,
    pub expired: i64,
    pub took: Duration,
}

impl Tally {
    pub fn events(&self) -> u64 {
        u64::try_from(self.accepted + self.rejected + self.expired).unwrap_or_default()
    }
}

/// Ingests all events of all orgs and shows what became of them.
pub fn ingest(screen: &Screen, client: &mut Client, orgs: &[OrgEvents]) -> Result<()> {
    let mut rows = Vec::new();
    let mut total = Tally::default();
    for org in orgs {
        let tally = ingest_org(client, org)?;
        rows.push(row(org.org, &tally));
        total.batches += tally.batches;
        total.accepted += tally.accepted;
        total.rejected += tally.rejected;
        total.expired += tally.expired;
        total.took += tally.took;
    }
    // Statistics are what the purge counts events by; they would otherwise come a second later.
    client.simple_query("SELECT pg_stat_force_next_flush()").context("cannot flush statistics")?;
    screen.table(&["org", "calls", "accepted", "rejected", "expired", "events/s"], &rows);
    screen.say(&format!(
        "{} events in {:.2} s over one connection, each call committed before the next: {} events a second.\n\
         The first event of an hour makes its tier's chunk for that hour, which is part of the time.",
        grouped(total.events()),
        total.took.as_secs_f64(),
        grouped(rate(&total))
    ));
    if total.rejected > 0 {
        screen.say("Rejected events are kept as they came, with the reason, in tailstream.rejected_events.");
    }
    if total.expired > 0 {
        screen.say(&format!(
            "{} were older than their org's retention already: counted as expired, not stored.",
            grouped(u64::try_from(total.expired).unwrap_or_default())
        ));
    }
    Ok(())
}

/// The time of the calls alone counts, not that of making their JSON.
fn ingest_org(client: &mut Client, org: &OrgEvents) -> Result<Tally> {
    let statement = client
        .prepare("SELECT accepted, rejected, expired FROM ts_ingest($1, $2, on_invalid => 'quarantine')")
        .context("cannot prepare ts_ingest")?;
    let mut tally = Tally::default();
    for batch in org.events.chunks(BATCH) {
        let events = RawValue::from_string(json_array(batch)).context("a batch is no JSON")?;
        let started = Instant::now();
        let answer = client
            .query_one(&statement, &[&org.org, &Json(&events)])
            .with_context(|| format!("ts_ingest refused a batch of org {}", org.org))?;
        tally.took += started.elapsed();
        tally.batches += 1;
        tally.accepted += i64::from(answer.get::<_, i32>(0));
        tally.rejected += i64::from(answer.get::<_, i32>(1));
        tally.expired += i64::from(answer.get::<_, i32>(2));
    }
    Ok(tally)
}

fn row(org: &str, tally: &Tally) -> Vec<String> {
    let count = |count: i64| grouped(u64::try_from(count).unwrap_or_default());
    vec![
        org.to_owned(),
        grouped(tally.batches),
        count(tally.accepted),
        count(tally.rejected),
        count(tally.expired),
        grouped(rate(tally)),
    ]
}

fn rate(tally: &Tally) -> u64 {
    (tally.events() as f64 / tally.took.as_secs_f64().max(1e-6)) as u64
}
