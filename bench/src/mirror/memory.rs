//! The memory of Redis with our window, against that of the plan's set-up.
//!
//! The plan lets every org's stream grow to 50,000 entries ("Event retention: … 50K events",
//! `TAILSTREAM_STREAM_MAXLEN=50000`) and budgets 500 MB for it. We keep an hour of an org's events,
//! at most 5,000 of a standard org and 50,000 of a premium one.
//!
//! Ten orgs, one of them premium, are compared; a stream's memory depends on no other one. The
//! traffic of each is that of the samples: the log's mean rate, or 10,000 an hour when it is made up.
//! The plan's streams are full, as they are after some time at any rate.
//!
//! What the result depends on:
//! - **The rate**, as long as an org has fewer events an hour than its tier's limit. The log is of a
//!   quiet site, so a second figure tells what is left at the worst: all orgs so busy that every one
//!   reaches its limit. Then nothing but the tier's limits saves anything.
//! - **The share of premium orgs**, in that worst case: a premium org saves nothing there. With one
//!   in ten it is 0.81 for entries of the same size.
//! - **The plan's entry**, which the plan does not show ("Existing Redis logic unchanged"). We take
//!   the smallest that its live viewers can read: one field with `type`, `timestamp` and the event
//!   as it was ingested. That is some hundred bytes, not the 10 KB of 500 MB for 50,000 entries, so
//!   the budget is never reached; an entry that repeats the event, as the plan's table does, or one
//!   of 10 KB, would make our share smaller still.

use anyhow::{Context as _, Result, ensure};
use postgres::Client;
use postgres::types::Json;
use redis::{Connection, InfoDict};
use serde_json::json;
use tailstream_devkit::Redis;
use tailstream_devkit::event::{now_micros, rfc3339};

use super::{Mirror, batch};
use crate::context::Context;
use crate::load::TIER;
use crate::results::{Finding, Results};
use crate::sample::Samples;
use crate::screen;

pub const DATABASE: &str = "mirror_memory";
const ORGS: usize = 10;
const PREMIUM: usize = 1;
/// The plan's limit of a stream, which is that of premium orgs here.
const PLAN_ENTRIES: usize = 50_000;
const STANDARD_ENTRIES: usize = 5_000;
/// Events that a shipper sends at once.
const BATCH: usize = 100;
/// Sent beyond a limit, so that trimming is at work.
const BEYOND: usize = 2_000;

/// What Redis has.
#[derive(Clone, Copy)]
struct Held {
    entries: usize,
    bytes: u64,
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let samples = context.samples;
    let plan = plan(samples)?;
    let mirror = Mirror::start(context.server, DATABASE)?;
    let mut client = mirror.connect()?;
    for org in 0..PREMIUM {
        client.execute("SELECT ts_set_org_tier($1, $2)", &[&name(org), &TIER])?;
    }
    let empty = held(&mirror, 0, |_| 0)?;
    // What goes beyond the limits is trimmed anyway.
    let of_an_hour = |org: usize| (samples.per_hour().ceil() as usize).min(limit(org) + BEYOND);
    ingest(&mut client, samples, of_an_hour)?;
    let window = held(&mirror, empty.bytes, of_an_hour)?;
    ingest(&mut client, samples, |org| limit(org) + BEYOND)?;
    let full = held(&mirror, empty.bytes, limit)?;

    let saved = |ours: Held| 1.0 - ours.bytes as f64 / plan.bytes as f64;
    let described = |held: Held| {
        let each = held.bytes as f64 / held.entries.max(1) as f64;
        json!({ "entries": held.entries, "bytes": held.bytes, "bytes_of_an_entry": each })
    };
    let megabytes = |held: Held| format!("{:.2} MB", held.bytes as f64 / 1e6);
    let traffic =
        format!("{ORGS} orgs, {PREMIUM} of them premium, {:.0} events an hour each", samples.per_hour());
    screen::say(&format!("Traffic: {traffic}"));
    let finding = Finding { value: saved(window), ours: megabytes(window), theirs: megabytes(plan) };
    let detail = json!({
        "traffic": {
            "what": traffic,
            "orgs": ORGS,
            "of_which_premium": PREMIUM,
            "events_of_an_org_in_an_hour": samples.per_hour(),
            "rate_of": samples.origin(),
        },
        "ours": described(window),
        "theirs": described(plan),
        "all_orgs_at_their_limits": { "ours": described(full), "saved": saved(full) },
    });
    results.add("redis_memory_saved", finding, detail);
    results.add_absolute("redis_memory_saved_all_orgs_at_their_limits", saved(full));
    drop(client);
    mirror.stop()
}

fn name(org: usize) -> String {
    format!("org-{org}")
}

fn plan_stream(org: usize) -> String {
    format!("tailstream:stream:{}", name(org))
}

/// The limit of an org's stream.
fn limit(org: usize) -> usize {
    if org < PREMIUM { PLAN_ENTRIES } else { STANDARD_ENTRIES }
}

/// Stores so many events of each org, in small batches.
fn ingest(client: &mut Client, samples: &Samples, events: impl Fn(usize) -> usize) -> Result<()> {
    let ingest = client.prepare("SELECT accepted FROM ts_ingest($1, $2)")?;
    // As when many clients share the server: the wait for the disk is not what is measured.
    client.batch_execute("SET synchronous_commit = off")?;
    for org in 0..ORGS {
        for first in (0..events(org)).step_by(BATCH) {
            let count = BATCH.min(events(org) - first);
            client.query(&ingest, &[&name(org), &Json(&*batch(samples, first, count)?)])?;
        }
    }
    Ok(())
}

/// What the mirror's Redis holds more than when it was empty, with nobody connected whose buffers
/// would count.
fn held(mirror: &Mirror, empty: u64, ingested: impl Fn(usize) -> usize) -> Result<Held> {
    mirror.wait_until_sent()?;
    mirror.cut()?;
    let mut redis = mirror.redis().connect()?;
    let mut entries = 0;
    for org in 0..ORGS {
        let (found, least) =
            (length(&mut redis, &mirror.stream(&name(org))?)?, ingested(org).min(limit(org)));
        ensure!(found >= least, "the stream of {} has {found} of {least} entries", name(org));
        entries += found;
    }
    let bytes = used(&mut redis)?.saturating_sub(empty);
    mirror.mend()?;
    mirror.wait_until_sent()?;
    (0..ORGS).try_for_each(|org| mirror.verify(&name(org)).map(drop))?;
    Ok(Held { entries, bytes })
}

/// The plan's set-up with the same orgs: their streams are full.
fn plan(samples: &Samples) -> Result<Held> {
    let redis = Redis::builder("bench-plan").setting("maxmemory", "500mb").create()?;
    let empty = used(&mut redis.connect()?)?;
    let mut connection = redis.connect()?;
    let mut pipeline = redis::pipe();
    for org in 0..ORGS {
        let (key, limit) = (plan_stream(org), PLAN_ENTRIES.to_string());
        for first in (0..PLAN_ENTRIES + BEYOND).step_by(BATCH) {
            pipeline.clear();
            for index in first..first + BATCH {
                let entry = plan_entry(samples, index)?;
                pipeline.cmd("XADD").arg(&[&key, "MAXLEN", "~", &limit, "*", "data", &entry]).ignore();
            }
            pipeline.exec(&mut connection).context("cannot fill the plan's streams")?;
        }
    }
    drop(connection);
    let mut connection = redis.connect()?;
    let bytes = used(&mut connection)?.saturating_sub(empty);
    let mut entries = 0;
    for org in 0..ORGS {
        entries += length(&mut connection, &plan_stream(org))?;
    }
    ensure!(entries >= ORGS * PLAN_ENTRIES, "the plan's streams hold {entries} entries only");
    redis.destroy()?;
    Ok(Held { entries, bytes })
}

/// What the plan's viewers read: `data.type`, `data.timestamp` and `data.data`.
fn plan_entry(samples: &Samples, index: usize) -> Result<String> {
    let now = now_micros();
    let sample = samples.get(index);
    let address = sample.ip_address.map(|address| address.to_string());
    let event = sample.to_json(now, address.as_deref())?;
    Ok(format!(r#"{{"type":"log_event","timestamp":"{}","data":{event}}}"#, rfc3339(now)))
}

fn used(redis: &mut Connection) -> Result<u64> {
    let memory: InfoDict =
        redis::cmd("INFO").arg("memory").query(redis).context("cannot ask for the memory")?;
    memory.get("used_memory").context("Redis does not tell its memory")
}

fn length(redis: &mut Connection, stream: &str) -> Result<usize> {
    redis::cmd("XLEN").arg(stream).query(redis).context("cannot ask for a stream's length")
}
