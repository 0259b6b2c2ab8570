//! Dropping the chunks of a tier that are over, against DELETE and VACUUM.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use postgres::Client;
use serde_json::json;
use tailstream_devkit::event::now_micros;

use crate::backend::Backend;
use crate::cold;
use crate::context::Context;
use crate::generator::{Generator, Rows};
use crate::load::{EMPTY_OURS, EMPTY_SEED, tier_id};
use crate::payload::{HOUR, SECOND};
use crate::results::{Finding, Results};
use crate::round::{Contender, Measure, duel};
use crate::server::{OURS, SEED};

/// Orgs of each tier.
const ORGS: i64 = 10;
/// The retention of the tier that expires.
const RETENTION: i64 = 3 * HOUR;
/// Rows of the tier that stays, for each that goes.
const STAYING: f64 = 0.2;

/// The statement of the original plan: deletes the expired events of the orgs with the short retention.
const DELETE: &str = "
    DELETE FROM log_events
    WHERE created_at < now() - interval '3 hours'
        AND org_id IN (SELECT org_id FROM orgs WHERE NOT premium)";

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let expired = context.options.size(1_000_000, 200_000);
    let mut ours = Purge::new(context, expired)?;
    let mut theirs = Delete::new(context, expired)?;
    let warm = duel(context.server, context.options.size(3, 1), &mut ours, &mut theirs)?;
    results.add_race("purge_vs_delete", &warm, &json!({ "expired": expired, "staying": staying(expired) }));

    results.add_absolute("purge_before_commit_s", ours.before_commit);

    // Expired events were written hours or days ago. In a table larger than the memory they are only on disk.
    if cold::is_possible(&mut ours.client)? && cold::is_possible(&mut theirs.client)? {
        (ours.cold, theirs.cold) = (true, true);
        let cold = duel(context.server, context.options.size(2, 1), &mut ours, &mut theirs)?;
        results.add_absolute("purge_of_cold_rows_s", cold.ours.seconds());
        results.add_absolute("delete_of_cold_rows_s", cold.theirs.seconds());
        results.add_absolute("purge_vs_delete_of_cold_rows_ratio", cold.ratio());
    }

    ours.cold = false;
    let blocked = blocked(context, &mut ours)?;
    let value = blocked.iter().copied().fold(0.0, f64::max);
    let finding = Finding { value, ours: format!("{value:.1} ms"), theirs: String::new() };
    results.add("purge_blocks_others_ms", finding, json!({ "rounds": blocked, "expired": expired }));

    // A purge that was held up for some hours.
    let mut late = Purge { hours: 6, cold: false, ..ours };
    late.prepare()?;
    context.server.checkpoint()?;
    results.add_absolute("purge_of_6_chunks_s", late.run()?.seconds);
    late.generator.client.batch_execute(EMPTY_OURS).context("cannot empty our tables")
}

/// The longest that an ingest or a replay takes while a chunk is purged, in each of some rounds: milliseconds.
fn blocked(context: &Context, ours: &mut Purge) -> Result<Vec<f64>> {
    let mut longest = Vec::new();
    for _ in 0..context.options.size(3, 1) {
        ours.prepare()?;
        context.server.checkpoint()?;
        let over = AtomicBool::new(false);
        let others = [
            r#"SELECT FROM ts_ingest('long-1', '[{"path": "/"}]')"#,
            "SELECT count(*) FROM (SELECT FROM ts_replay('long-1', now() - interval '1 day', now()) LIMIT 100) r",
        ];
        let clients = others.map(|_| context.server.connect(OURS));
        let took = thread::scope(|scope| -> Result<Vec<f64>> {
            let running: Vec<_> = others
                .into_iter()
                .zip(clients)
                .map(|(sql, client)| scope.spawn(|| repeat(client?, sql, &over)))
                .collect();
            let purged = ours.client.batch_execute("SELECT FROM ts_apply_retention()");
            // The waiting calls end, and later ones are not blocked.
            over.store(true, Ordering::Relaxed);
            purged?;
            let took = running.into_iter().map(|other| other.join().map_err(|_| anyhow!("a client died"))?);
            took.collect()
        })?;
        longest.push(took.into_iter().fold(0.0, f64::max));
    }
    Ok(longest)
}

/// Runs a statement over and over; returns the milliseconds that the slowest run took but for the first ones.
fn repeat(mut client: Client, sql: &str, over: &AtomicBool) -> Result<f64> {
    const WARM_UP: usize = 5;
    let statement = client.prepare(sql)?;
    let mut longest: f64 = 0.0;
    let mut runs = 0;
    while !over.load(Ordering::Relaxed) || runs <= WARM_UP {
        let started = Instant::now();
        client.query(&statement, &[])?;
        if runs >= WARM_UP {
            longest = longest.max(started.elapsed().as_secs_f64() * 1_000.0);
        }
        runs += 1;
    }
    Ok(longest)
}

fn staying(expired: i64) -> i64 {
    (expired as f64 * STAYING) as i64
}

/// The last hours that are over for a retention of three.
fn expired_span(hours: i64) -> (i64, i64) {
    let end = (now_micros() - RETENTION - 60 * SECOND).div_euclid(HOUR) * HOUR;
    (end - hours * HOUR, end)
}

fn rows(prefix: &str, count: i64, hours: i64) -> Rows<'_> {
    let (start, end) = expired_span(hours);
    Rows { count, start, end, prefix, orgs: ORGS }
}

struct Purge {
    generator: Generator,
    client: Client,
    backend: Backend,
    tiers: [i16; 2],
    expired: i64,
    hours: i64,
    data_dir: PathBuf,
    cold: bool,
    /// Seconds of the last run until it only had to commit.
    before_commit: f64,
}

impl Purge {
    fn new(context: &Context, expired: i64) -> Result<Self> {
        let mut client = context.server.connect(OURS)?;
        let backend = Backend::of(&mut client)?;
        let tiers = [tier_id(&mut client, "standard")?, tier_id(&mut client, "premium")?];
        for (tier, prefix) in [("standard", "short-"), ("premium", "long-")] {
            client.execute(
                "SELECT ts_set_org_tier($1 || n, $2) FROM generate_series(0, $3::bigint - 1) n",
                &[&prefix, &tier, &ORGS],
            )?;
        }
        let generator = Generator::ours(context.server.connect(OURS)?, context.samples)?;
        let data_dir = context.server.cluster().data_dir();
        Ok(Self {
            generator,
            client,
            backend,
            tiers,
            expired,
            hours: 1,
            data_dir,
            cold: false,
            before_commit: 0.0,
        })
    }
}

impl Contender for Purge {
    fn name(&self) -> String {
        "ts_apply_retention".to_owned()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn prepare(&mut self) -> Result<()> {
        let Self { generator, tiers, expired, hours, .. } = self;
        generator.client.batch_execute(EMPTY_OURS).context("cannot empty our tables")?;
        generator.fill_ours(&rows("short-", *expired, *hours), tiers[0])?;
        generator.fill_ours(&rows("long-", staying(*expired), *hours), tiers[1])
    }

    fn settle(&mut self) -> Result<()> {
        if self.cold { cold::forget(&mut self.client, &self.data_dir, "tailstream.events") } else { Ok(()) }
    }

    fn run(&mut self) -> Result<Measure> {
        let mut chunks = 0;
        let measure = Measure::of(|| {
            let sql = "SELECT sum(chunks_dropped) FROM ts_apply_retention()";
            let started = Instant::now();
            let mut transaction = self.client.transaction()?;
            chunks = transaction.query_one(sql, &[])?.get::<_, Option<i64>>(0).unwrap_or_default();
            self.before_commit = started.elapsed().as_secs_f64();
            // Here the system frees the files, when nobody waits for a lock any more.
            transaction.commit()?;
            Ok(u64::try_from(self.expired)?)
        })?;
        let kept: i64 = self.client.query_one("SELECT count(*) FROM tailstream.events", &[])?.get(0);
        ensure!(
            chunks == self.hours && kept == staying(self.expired),
            "the purge dropped {chunks} chunks and left {kept} events"
        );
        Ok(measure)
    }
}

struct Delete {
    generator: Generator,
    client: Client,
    backend: Backend,
    expired: i64,
    data_dir: PathBuf,
    cold: bool,
}

impl Delete {
    fn new(context: &Context, expired: i64) -> Result<Self> {
        let mut client = context.server.connect(SEED)?;
        let backend = Backend::of(&mut client)?;
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS orgs;
                 CREATE TABLE orgs (org_id VARCHAR(255) PRIMARY KEY, premium BOOLEAN NOT NULL);
                 INSERT INTO orgs SELECT 'short-' || n, false FROM generate_series(0, {ORGS} - 1) n;
                 INSERT INTO orgs SELECT 'long-' || n, true FROM generate_series(0, {ORGS} - 1) n;
                 ANALYZE orgs"
            ))
            .context("cannot make the orgs of the plan's table")?;
        let generator = Generator::seed(context.server.connect(SEED)?, context.samples)?;
        let data_dir = context.server.cluster().data_dir();
        Ok(Self { generator, client, backend, expired, data_dir, cold: false })
    }
}

impl Contender for Delete {
    fn name(&self) -> String {
        "DELETE and VACUUM, seed".to_owned()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn prepare(&mut self) -> Result<()> {
        let Self { generator, expired, .. } = self;
        generator.client.batch_execute(EMPTY_SEED).context("cannot empty the plan's table")?;
        generator.fill_seed(&rows("short-", *expired, 1))?;
        generator.fill_seed(&rows("long-", staying(*expired), 1))?;
        generator.client.batch_execute("ANALYZE log_events").context("cannot analyse the plan's table")
    }

    fn settle(&mut self) -> Result<()> {
        if self.cold { cold::forget(&mut self.client, &self.data_dir, "log_events") } else { Ok(()) }
    }

    fn run(&mut self) -> Result<Measure> {
        let mut deleted = 0;
        let measure = Measure::of(|| {
            deleted = self.client.execute(DELETE, &[])?;
            self.client.batch_execute("VACUUM log_events")?;
            Ok(deleted)
        })?;
        ensure!(deleted == u64::try_from(self.expired)?, "{deleted} rows were deleted");
        Ok(measure)
    }
}
