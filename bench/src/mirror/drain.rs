//! How fast the mirror catches up after an outage of Redis, against a client that does nothing but
//! XADD the same entries.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postgres::Client;
use postgres::types::Json;
use redis::Connection;
use serde_json::json;
use serde_json::value::RawValue;
use tailstream_devkit::event::now_micros;

use super::{Mirror, POLL, wait_until};
use crate::context::Context;
use crate::load::{EMPTY_OURS, ORG, TIER, register};
use crate::payload::{BATCH, Payload, SECOND};
use crate::results::{Finding, Results};
use crate::round::{Duel, Measure, Record};
use crate::screen::{self, number};

pub const DATABASE: &str = "mirror_drain";
/// More than there will be, so that nothing is trimmed.
const STREAM_ENTRIES: i64 = 2_000_000;
/// The events are of the last five minutes, each batch of a moment, as live ones are.
const SPAN: i64 = 300 * SECOND;
/// Where the client adds its entries.
const PLAIN: &str = "plain";
/// Commands in a pipeline of that client; the better size counts.
const PIPELINES: [usize; 2] = [100, 1_000];
/// Entries that are read from a stream at once.
const PAGE: usize = 10_000;

/// Id, and names and values of the fields.
type Entry = (String, Vec<String>);

struct Outage<'a> {
    mirror: &'a Mirror<'a>,
    client: Client,
    redis: Connection,
    stream: String,
    batches: Vec<Box<RawValue>>,
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let options = context.options;
    let now = now_micros();
    let payload = Payload::within(context.samples, now - SPAN, now, options.size(1_000, 200));
    let batches = (0..payload.batches()).map(|batch| payload.json(batch)).collect::<Result<Vec<_>>>()?;
    let mirror = Mirror::start(context.server, DATABASE)?;
    let mut client = mirror.connect()?;
    register(&mut client)?;
    client.execute("SELECT ts_alter_tier($1, stream_entries => $2)", &[&TIER, &STREAM_ENTRIES])?;
    let (redis, stream) = (mirror.redis().connect()?, mirror.stream(ORG)?);
    let mut outage = Outage { mirror: &mirror, client, redis, stream, batches };

    let rounds = options.size(3, 2);
    let mut drained = Vec::new();
    let mut added = PIPELINES.map(|_| Vec::new());
    for round in 0..rounds {
        let before = outage.begin()?;
        context.server.checkpoint()?;
        drained.push(outage.end(before)?);
        let entries = outage.entries()?;
        let matching = mirror.verify(ORG)?;
        ensure!(matching == entries.len() as u64, "{matching} of {} entries were verified", entries.len());
        for (size, measures) in PIPELINES.iter().zip(&mut added) {
            measures.push(add(&mut outage.redis, &entries, *size)?);
        }
        screen::progress("Draining a backlog against XADD", round + 1, rounds);
    }
    report(results, &drained, added, payload.events());
    drop(outage);
    mirror.stop()
}

impl Outage<'_> {
    /// Takes Redis away and stores all batches. Returns how many entries the stream has until then.
    fn begin(&mut self) -> Result<u64> {
        self.client.batch_execute(EMPTY_OURS).context("cannot empty our tables")?;
        redis::cmd("XTRIM").arg(&[&self.stream, "MAXLEN", "0"]).exec(&mut self.redis)?;
        // The mirror looks for its last entry when it comes back: there has to be one.
        let ingest = self.client.prepare("SELECT accepted FROM ts_ingest($1, $2)")?;
        self.client.query(&ingest, &[&ORG, &Json(&*self.batches[0])])?;
        self.mirror.wait_until_sent()?;
        let before = self.length()?;
        ensure!(before == BATCH as u64, "the stream has {before} entries after a batch of {BATCH}");
        self.mirror.cut()?;
        for batch in &self.batches {
            self.client.query(&ingest, &[&ORG, &Json(&**batch)])?;
        }
        self.mirror.wait_until_placed()?;
        Ok(before)
    }

    /// Gives Redis back, and times from the first entry that arrives to the last one; entries that
    /// the first look finds already are not counted.
    fn end(&mut self, before: u64) -> Result<Measure> {
        let all = before + (self.batches.len() * BATCH) as u64;
        self.mirror.mend()?;
        let mut found = before;
        wait_until("the first entry", Duration::from_millis(1), || {
            found = self.length()?;
            Ok(found > before)
        })?;
        let started = Instant::now();
        wait_until("the last entry", POLL, || Ok(self.length()? >= all))?;
        self.mirror.wait_until_sent()?;
        let seconds = started.elapsed().as_secs_f64();
        let length = self.length()?;
        ensure!(length == all, "the stream has {length} entries instead of {all}");
        Ok(Measure { units: all - found, seconds, cpu_seconds: None })
    }

    fn length(&mut self) -> Result<u64> {
        redis::cmd("XLEN")
            .arg(&self.stream)
            .query(&mut self.redis)
            .context("cannot ask for the stream's length")
    }

    /// All there is in the stream.
    fn entries(&mut self) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let from = all.last().map_or_else(|| "-".to_owned(), |(id, _)| format!("({id}"));
            let page: Vec<Entry> = redis::cmd("XRANGE")
                .arg(&[&self.stream, &from, "+", "COUNT"])
                .arg(PAGE)
                .query(&mut self.redis)
                .context("cannot read the stream")?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }
}

/// Adds the entries to an empty stream, so many commands at a time.
fn add(redis: &mut Connection, entries: &[Entry], size: usize) -> Result<Measure> {
    let measure = Measure::of(|| {
        let mut pipeline = redis::Pipeline::with_capacity(size);
        for chunk in entries.chunks(size) {
            pipeline.clear();
            for (id, fields) in chunk {
                pipeline.cmd("XADD").arg(PLAIN).arg(id).arg(fields).ignore();
            }
            pipeline.exec(redis).context("cannot add entries")?;
        }
        Ok(entries.len() as u64)
    })?;
    let length: usize = redis::cmd("XLEN").arg(PLAIN).query(redis)?;
    ensure!(length == entries.len(), "{length} of {} entries were added", entries.len());
    redis::cmd("DEL").arg(PLAIN).exec(redis)?;
    // Redis frees what was in it before it answers, and the system a little later.
    thread::sleep(Duration::from_millis(100));
    Ok(measure)
}

fn report(results: &mut Results, drained: &[Measure], added: [Vec<Measure>; 2], events: usize) {
    let records = PIPELINES.iter().zip(added).map(|(size, rounds)| Record {
        name: format!("XADD of the same entries, pipelines of {size}"),
        rounds,
    });
    let Some(best) = records.max_by(|one, other| one.rate().total_cmp(&other.rate())) else {
        return;
    };
    let ours = Record { name: "mirror".to_owned(), rounds: drained.to_vec() };
    let duel = Duel { ours, theirs: best };
    let rate = duel.ours.rate();
    let finding = Finding { value: rate, ours: format!("{} /s", number(rate)), theirs: String::new() };
    let rows = json!({ "backlog": events });
    results.add("mirror_drain_events_per_s", finding, json!({ "rounds": drained, "rows": rows }));
    results.add_duel("mirror_drain_vs_xadd", "/s", &duel, &rows);
}
