//! The time that the mirror adds to a call with a single event.

use std::time::Instant;

use anyhow::{Context as _, Result};
use postgres::types::Json;
use postgres::{Client, Statement};
use serde_json::{Value, json};

use super::{Mirror, batch};
use crate::context::Context;
use crate::load::{EMPTY_OURS, ORG, register};
use crate::results::{Finding, Results};
use crate::sample::Samples;
use crate::screen;
use crate::server::OURS;
use crate::statistics::{median, percentile};

pub const DATABASE: &str = "mirror_overhead";
/// Calls in a turn; the first ones after a pause are not counted.
const CALLS: usize = 100;
const WARM_UP: usize = 10;
/// Turns of both that make a round, which has calls enough for a 99th percentile.
const TURNS: usize = 5;

/// One connection, and how long its calls took.
struct Caller {
    client: Client,
    statement: Statement,
    millis: Vec<f64>,
}

impl Caller {
    fn new(mut client: Client) -> Result<Self> {
        client.batch_execute(EMPTY_OURS).context("cannot empty our tables")?;
        register(&mut client)?;
        let statement = client.prepare("SELECT accepted FROM ts_ingest($1, $2)")?;
        Ok(Self { client, statement, millis: Vec::new() })
    }

    /// The percentile of each round.
    fn rounds(&self, percent: f64) -> Vec<f64> {
        self.millis.chunks(CALLS * TURNS).map(|round| percentile(round, percent)).collect()
    }

    fn describe(&self, what: &str) -> Value {
        let at = |percent| percentile(&self.millis, percent);
        json!({
            "what": what,
            "ms_of_all": { "p50": at(50.0), "p95": at(95.0), "p99": at(99.0) },
            "p99_ms_of_rounds": self.rounds(99.0),
        })
    }

    fn turn(&mut self, samples: &Samples) -> Result<()> {
        for call in 0..WARM_UP + CALLS {
            let event = batch(samples, self.millis.len() + call, 1)?;
            let started = Instant::now();
            self.client.query_one(&self.statement, &[&ORG, &Json(&*event)])?;
            if call >= WARM_UP {
                self.millis.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        Ok(())
    }
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let turns = TURNS * context.options.size(15, 3);
    let mirror = Mirror::start(context.server, DATABASE)?;
    let mut with = Caller::new(mirror.connect()?)?;
    let mut without = Caller::new(context.server.connect(OURS)?)?;
    context.server.checkpoint()?;
    for turn in 0..turns {
        let with_first = turn % 2 == 0;
        for with_now in [with_first, !with_first] {
            if with_now {
                with.turn(context.samples)?;
                // Remaining work of the workers must not slow the other one.
                mirror.wait_until_sent()?;
            } else {
                without.turn(context.samples)?;
            }
        }
        screen::progress("Single events with and without a mirror", turn + 1, turns);
    }
    mirror.verify(ORG)?;

    // The median of each round's difference: what slows the machine for longer than a round counts
    // for both.
    let added = |percent: f64| {
        let (with, without) = (with.rounds(percent), without.rounds(percent));
        median(&with.iter().zip(without).map(|(with, without)| with - without).collect::<Vec<_>>())
    };
    let p99 = |caller: &Caller| format!("{:.3} ms", median(&caller.rounds(99.0)));
    let finding = Finding { value: added(99.0), ours: p99(&with), theirs: p99(&without) };
    let detail = json!({
        "ours": with.describe("ts_ingest of one event, mirrored"),
        "theirs": without.describe("ts_ingest of one event"),
        "rows": { "calls": with.millis.len() },
    });
    results.add("mirror_commit_overhead_ms_p99", finding, detail);
    results.add_absolute("mirror_commit_overhead_ms_p50", added(50.0));
    drop(with);
    mirror.stop()
}
