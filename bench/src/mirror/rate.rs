//! The rate of `ts_ingest` beside a mirror at work.

use std::time::Instant;

use anyhow::{Context as _, Result};
use postgres::types::Json;
use postgres::{Client, Statement};
use serde_json::json;
use serde_json::value::RawValue;
use tailstream_devkit::event::now_micros;

use super::Mirror;
use crate::backend::Backend;
use crate::context::Context;
use crate::load::{EMPTY_OURS, ORG, register};
use crate::payload::{BATCH, Payload, SECOND};
use crate::results::Results;
use crate::round::{Contender, Measure, duel};
use crate::server::OURS;
use crate::statistics::median;

pub const DATABASE: &str = "mirror_rate";
/// Sent before the clock runs: they make the chunk and the session's plans.
const WARM_UP: usize = 8;
/// The events are of the last five minutes, as live ones are.
const SPAN: i64 = 300 * SECOND;

/// What happens to events after their commit.
#[derive(Clone, Copy)]
enum Beside<'a> {
    Nothing,
    Sequencer(&'a Mirror<'a>),
    Mirror(&'a Mirror<'a>),
}

impl Beside<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "ts_ingest",
            Self::Sequencer(_) => "ts_ingest, sequencer",
            Self::Mirror(_) => "ts_ingest, sequencer and mirror",
        }
    }

    /// Returns once the workers have nothing to do.
    fn wait(self) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Sequencer(mirror) => mirror.wait_until_placed(),
            Self::Mirror(mirror) => mirror.wait_until_sent(),
        }
    }
}

/// Batches of 1,000 of one org over one connection.
struct Ingest<'a> {
    client: Client,
    backend: Backend,
    statement: Statement,
    batches: &'a [Box<RawValue>],
    beside: Beside<'a>,
    /// Seconds from each round's last commit until the workers were done with it.
    behind: Vec<f64>,
}

impl<'a> Ingest<'a> {
    fn new(mut client: Client, batches: &'a [Box<RawValue>], beside: Beside<'a>) -> Result<Self> {
        register(&mut client)?;
        let backend = Backend::of(&mut client)?;
        let statement = client.prepare("SELECT accepted FROM ts_ingest($1, $2)")?;
        Ok(Self { client, backend, statement, batches, beside, behind: Vec::new() })
    }

    fn send(&mut self, batches: &[Box<RawValue>]) -> Result<()> {
        for batch in batches {
            self.client.query(&self.statement, &[&ORG, &Json(&**batch)])?;
        }
        Ok(())
    }
}

impl Contender for Ingest<'_> {
    fn name(&self) -> String {
        self.beside.name().to_owned()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn prepare(&mut self) -> Result<()> {
        self.client.batch_execute(EMPTY_OURS).context("cannot empty our tables")?;
        self.send(&self.batches[..WARM_UP.min(self.batches.len())])?;
        self.beside.wait()
    }

    fn run(&mut self) -> Result<Measure> {
        let measure = Measure::of(|| {
            self.send(self.batches)?;
            Ok((self.batches.len() * BATCH) as u64)
        })?;
        let committed = Instant::now();
        // Remaining work of the workers must not slow the next contender.
        self.beside.wait()?;
        self.behind.push(committed.elapsed().as_secs_f64());
        Ok(measure)
    }
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let (server, options) = (context.server, context.options);
    let now = now_micros();
    let payload = Payload::within(context.samples, now - SPAN, now, options.size(400, 100));
    let batches = (0..payload.batches()).map(|batch| payload.json(batch)).collect::<Result<Vec<_>>>()?;
    let mirror = Mirror::start(server, DATABASE)?;

    let mut without = Ingest::new(server.connect(OURS)?, &batches, Beside::Nothing)?;
    let mut with = Ingest::new(mirror.connect()?, &batches, Beside::Mirror(&mirror))?;
    let measured = duel(server, options.size(7, 3), &mut with, &mut without)?;
    mirror.verify(ORG)?;
    let rows = json!({ "ingested": payload.events(), "seconds_behind_at_the_end": with.behind });
    results.add_duel("ingest_with_mirror_vs_without", "/s", &measured, &rows);
    results.add_absolute("ingest_with_mirror_behind_at_the_end_s", median(&with.behind));

    mirror.enable(false)?;
    let mut sequencer = Ingest::new(mirror.connect()?, &batches, Beside::Sequencer(&mirror))?;
    let measured = duel(server, options.size(5, 3), &mut sequencer, &mut without)?;
    results.add_absolute("ingest_with_sequencer_alone_per_s", measured.ours.rate());
    results.add_absolute("ingest_with_sequencer_alone_vs_without_ratio", measured.ratio());
    mirror.enable(true)?;
    drop((with, sequencer));
    mirror.stop()
}
