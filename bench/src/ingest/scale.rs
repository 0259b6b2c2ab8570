//! Whether ingest stays as fast with many orgs, and with much stored.

use std::thread;

use anyhow::{Context as _, Result, anyhow};
use postgres::types::Json;
use postgres::{Client, Statement};
use serde_json::json;
use serde_json::value::RawValue;
use tailstream_devkit::event::now_micros;

use crate::backend::Backend;
use crate::context::Context;
use crate::generator::{Generator, Rows};
use crate::load::{EMPTY_OURS, TIER, tier_id};
use crate::machine::free_bytes;
use crate::payload::{BATCH, HOUR, Payload};
use crate::results::Results;
use crate::round::{Contender, Measure, duel};
use crate::screen;
use crate::server::{OURS, SCALE_FEW, SCALE_MANY, Server};

const PREFIX: &str = "org-";
/// Stored before each round of the comparison by orgs, so that indexes are not empty.
const PRELOADED: i64 = 200_000;
/// Stored in each hour of the comparison by rows.
const PER_HOUR: i64 = 200_000;
/// Disk space for a stored row with its index and its share of the WAL, and for everything else.
const BYTES_PER_ROW: u64 = 800;
const BYTES_TO_SPARE: u64 = 10 << 30;
/// Coprime to the numbers of orgs: one batch after the other goes to another part of the index.
const STRIDE: usize = 7_919;
const WARM_UP: usize = 8;

/// Batches of 1,000, each for one of many orgs.
struct Cycle {
    name: String,
    client: Client,
    backend: Backend,
    statement: Statement,
    batches: Vec<Box<RawValue>>,
    orgs: usize,
    reset: Reset,
}

/// How a round begins.
enum Reset {
    /// With events of all orgs, newly made.
    Refill(Box<Generator>, i16),
    /// With what is older than this (microseconds since the epoch).
    DropNewer(i64),
}

impl Cycle {
    fn new(
        server: &Server,
        database: &str,
        name: String,
        payload: Payload,
        orgs: usize,
        reset: Reset,
    ) -> Result<Self> {
        let mut client = server.connect(database)?;
        let backend = Backend::of(&mut client)?;
        let statement = client.prepare("SELECT accepted FROM ts_ingest($1, $2)")?;
        let batches = (0..payload.batches()).map(|batch| payload.json(batch)).collect::<Result<_>>()?;
        Ok(Self { name, client, backend, statement, batches, orgs, reset })
    }

    fn send(&mut self, batch: usize) -> Result<()> {
        let org = format!("{PREFIX}{}", batch * STRIDE % self.orgs);
        self.client.query(&self.statement, &[&org, &Json(&*self.batches[batch])])?;
        Ok(())
    }
}

impl Contender for Cycle {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn prepare(&mut self) -> Result<()> {
        match &mut self.reset {
            Reset::Refill(generator, tier) => {
                generator.client.batch_execute(EMPTY_OURS).context("cannot empty our tables")?;
                let (start, end) = Payload::recent_span();
                let orgs = i64::try_from(self.orgs)?;
                generator.fill_ours(&Rows { count: PRELOADED, start, end, prefix: PREFIX, orgs }, *tier)?;
            }
            Reset::DropNewer(time) => {
                let sql = format!(
                    "SELECT drop_chunks('tailstream.events', newer_than => to_timestamp({} / 1e6))",
                    *time
                );
                self.client.batch_execute(&sql).context("cannot drop the chunks of the last round")?;
            }
        }
        let step = (self.batches.len() / WARM_UP).max(1);
        (0..self.batches.len()).step_by(step).try_for_each(|batch| self.send(batch))
    }

    fn run(&mut self) -> Result<Measure> {
        Measure::of(|| {
            (0..self.batches.len()).try_for_each(|batch| self.send(batch))?;
            Ok((self.batches.len() * BATCH) as u64)
        })
    }
}

/// 10,000 orgs against 10.
pub fn orgs(context: &Context, results: &mut Results) -> Result<()> {
    let options = context.options;
    let payload = Payload::recent(context.samples, options.size(300, 100));
    let (many, few) = (options.size(10_000, 1_000), 10);
    register(&mut context.server.connect(OURS)?, many)?;
    let cycle = |orgs: usize| {
        let mut client = context.server.connect(OURS)?;
        let tier = tier_id(&mut client, TIER)?;
        let generator = Generator::ours(client, context.samples)?;
        let reset = Reset::Refill(Box::new(generator), tier);
        Cycle::new(context.server, OURS, format!("ts_ingest, {orgs} orgs"), payload, orgs, reset)
    };
    let duel = duel(context.server, options.size(7, 3), &mut cycle(many)?, &mut cycle(few)?)?;
    let rows = json!({ "orgs": [many, few], "stored_before": PRELOADED, "ingested": payload.events() });
    results.add_duel("ingest_scale_orgs", "/s", &duel, &rows);
    Ok(())
}

/// 20 M stored events against 0.2 M, in hours before those that are ingested into.
pub fn rows(context: &Context, results: &mut Results) -> Result<()> {
    let server = context.server;
    let wanted = context.options.size(100, 10);
    let many = hours_with_room(server, wanted)?;
    let payload = Payload::recent(context.samples, context.options.size(300, 100));
    let oldest = (Payload::recent_span().0).div_euclid(HOUR) * HOUR;
    let databases = [(SCALE_MANY, many), (SCALE_FEW, 1)];
    for (database, hours) in databases {
        store_history(context, database, oldest, hours)?;
    }
    let cycle = |(database, hours): (&str, i64)| {
        let name = format!("ts_ingest, {} M stored", (hours * PER_HOUR) as f64 / 1e6);
        Cycle::new(server, database, name, payload, 10, Reset::DropNewer(oldest))
    };
    let rounds = context.options.size(7, 3);
    let duel = duel(server, rounds, &mut cycle(databases[0])?, &mut cycle(databases[1])?)?;
    let stored = databases.map(|(_, hours)| hours * PER_HOUR);
    results.add_duel(
        "ingest_scale_rows",
        "/s",
        &duel,
        &json!({ "stored": stored, "ingested": payload.events() }),
    );
    databases.iter().try_for_each(|(database, _)| server.drop_database(database))
}

/// As many hours as wanted, or as the disk holds.
fn hours_with_room(server: &Server, wanted: i64) -> Result<i64> {
    let free = free_bytes(server.cluster().dir())?.saturating_sub(BYTES_TO_SPARE);
    let room = i64::try_from(free / (BYTES_PER_ROW * PER_HOUR as u64))?;
    let hours = wanted.min(room).max(1);
    if hours < wanted {
        screen::say(&format!("The disk has room for {hours} of {wanted} hours of stored events"));
    }
    Ok(hours)
}

fn register(client: &mut Client, orgs: usize) -> Result<()> {
    client
        .execute(
            "SELECT count(ts_set_org_tier($1 || n, $2)) FROM generate_series(0, $3::bigint - 1) n",
            &[&PREFIX, &TIER, &i64::try_from(orgs)?],
        )
        .context("cannot register the orgs")?;
    Ok(())
}

/// A new database with so many full hours before `end` in it.
fn store_history(context: &Context, database: &str, end: i64, hours: i64) -> Result<()> {
    let (server, samples) = (context.server, context.samples);
    let started = now_micros();
    let mut client = server.connect(database)?;
    register(&mut client, 10)?;
    let tier = tier_id(&mut client, TIER)?;
    // Two sessions, for two cores; each takes every other hour.
    let mut generators = [(); 2]
        .iter()
        .map(|()| Generator::ours(server.connect(database)?, samples))
        .collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let fillers: Vec<_> = generators
            .iter_mut()
            .enumerate()
            .map(|(first, generator)| {
                scope.spawn(move || {
                    (1..=hours).skip(first).step_by(2).try_for_each(|hour| {
                        let start = end - hour * HOUR;
                        let end = start + HOUR;
                        generator
                            .fill_ours(&Rows { count: PER_HOUR, start, end, prefix: PREFIX, orgs: 10 }, tier)
                    })
                })
            })
            .collect();
        fillers.into_iter().try_for_each(|filler| filler.join().map_err(|_| anyhow!("a filler died"))?)
    })?;
    client.batch_execute("VACUUM ANALYZE tailstream.events").context("cannot analyse our table")?;
    let seconds = (now_micros() - started) as f64 / 1e6;
    screen::say(&format!("{} events stored in {seconds:.0} s", screen::number((hours * PER_HOUR) as f64)));
    Ok(())
}
