//! What a long history costs those who want nothing of it: the same calls in a database with few chunks of positions and, a
//! moment later, with many.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use postgres::Client;
use redis::Connection;
use serde_json::json;

use super::Mirror;
use crate::comparison::Context;
use crate::load::ORG;
use crate::results::{Finding, Results};
use crate::screen::{self, number};
use crate::statistics::percentile;

pub const DATABASE: &str = "mirror_history";
/// What a tier of a year has.
const CHUNKS: usize = 1_436;
const KEYS: [&str; 5] = [
    "history_cost_commit_to_xread",
    "history_cost_fetch",
    "history_cost_replay_live",
    "history_cost_mirror_status",
    "history_cost_set_org_tier",
];
/// Events of a fetch.
const FETCHED: usize = 100;

/// Positions at intervals of six hours, from so many ago up to so many.
const POSITIONS: &str = "
    INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                      first_event_at, last_event_at, events_before)
    SELECT -n, date_trunc('milliseconds', x.t), 0, -n, '3', $3, o.tier, 1, x.t, x.t, -n
    FROM tailstream.orgs o, generate_series($1::bigint, $2::bigint) n,
         LATERAL (SELECT clock_timestamp() - n * interval '6 hours') x (t)
    WHERE o.org_id = $3";

type Entry = (String, Vec<String>);

struct History<'a> {
    mirror: &'a Mirror<'a>,
    client: Client,
    redis: Connection,
    stream: String,
    last_id: String,
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let chunks = context.options.size(CHUNKS, 200);
    let calls = context.options.size(300, 60);
    let mirror = Mirror::start(context.server, DATABASE)?;
    let mut client = mirror.connect()?;
    client.batch_execute(
        "SELECT ts_create_tier('year', '365 days'), ts_create_tier('half', '180 days');
         SELECT ts_set_org_tier('acme', 'year'); SELECT ts_cursor_create('fetched', 'acme', 'now')",
    )?;
    let (redis, stream) = (mirror.redis().connect()?, mirror.stream(ORG)?);
    let mut history = History { mirror: &mirror, client, redis, stream, last_id: "0".to_owned() };
    let few = history.measure(calls)?;
    let started = Instant::now();
    for first in (2..chunks as i64).step_by(100) {
        let last = (first + 99).min(chunks as i64 - 1);
        history.client.execute(POSITIONS, &[&first, &last, &ORG]).context("cannot make a history")?;
        screen::progress("Making chunks", last as usize, chunks);
    }
    results.add_absolute("history_made_s", started.elapsed().as_secs_f64());
    let found: i64 = history
        .client
        .query_one(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tailstream.positions'::regclass",
            &[],
        )?
        .get(0);
    ensure!(found as usize >= chunks, "{found} chunks instead of {chunks}");
    history.client.batch_execute("ANALYZE tailstream.positions")?;
    let many = history.measure(calls)?;
    for ((key, few), many) in KEYS.into_iter().zip(few).zip(many) {
        let finding = Finding {
            value: many.0 / few.0,
            ours: format!("{} ms with {found} chunks", number(many.0)),
            theirs: format!("{} ms", number(few.0)),
        };
        let detail = |(p50, p99): (f64, f64)| json!({ "p50_ms": p50, "p99_ms": p99 });
        results.add(key, finding, json!({ "few": detail(few), "many": detail(many), "calls": calls }));
    }
    drop(history);
    mirror.stop()
}

impl History<'_> {
    /// The median and the 99th percentile of each call, in the order of the keys: milliseconds.
    fn measure(&mut self, calls: usize) -> Result<[(f64, f64); 5]> {
        let mut times: [Vec<f64>; 5] = Default::default();
        // Plans become others when they have been used for a while.
        for call in 0..calls + 20 {
            let taken = [
                self.commit_to_xread()?,
                self.fetch()?,
                self.call("SELECT * FROM ts_replay_live('acme', clock_timestamp() - interval '1 minute')")?,
                self.call("SELECT * FROM ts_mirror_status()")?,
                self.call("SELECT ts_set_org_tier('acme', 'half')")?
                    + self.call("SELECT ts_set_org_tier('acme', 'year')")?,
            ];
            if call >= 20 {
                times.iter_mut().zip(taken).for_each(|(times, taken)| times.push(taken));
            }
        }
        Ok(times.map(|times| (percentile(&times, 50.0), percentile(&times, 99.0))))
    }

    fn commit_to_xread(&mut self) -> Result<f64> {
        self.client.batch_execute(r#"BEGIN; SELECT FROM ts_ingest('acme', '[{"path": "/"}]')"#)?;
        let started = Instant::now();
        self.client.batch_execute("COMMIT")?;
        let mut streams: Vec<(String, Vec<Entry>)> = redis::cmd("XREAD")
            .arg(&["BLOCK", "60000", "STREAMS", &self.stream, &self.last_id])
            .query(&mut self.redis)?;
        let taken = started.elapsed();
        let (_, mut entries) = streams.pop().context("nothing came")?;
        self.last_id = entries.pop().context("nothing came")?.0;
        Ok(taken.as_secs_f64() * 1_000.0)
    }

    fn fetch(&mut self) -> Result<f64> {
        self.client.execute(
            "SELECT FROM ts_ingest('acme', (SELECT json_agg(json_build_object('path', n::text)) FROM generate_series(1, $1::int - 1) n))",
            &[&(FETCHED as i32)],
        )?;
        self.mirror.wait_until_sent()?;
        let (id, _) = redis::cmd("XREVRANGE")
            .arg(&[&self.stream, "+", "-", "COUNT", "1"])
            .query::<Vec<Entry>>(&mut self.redis)?
            .pop()
            .context("the stream is empty")?;
        self.last_id = id;
        let started = Instant::now();
        let rows = self
            .client
            .query("SELECT * FROM ts_cursor_fetch('fetched', $1, auto_ack => true)", &[&(FETCHED as i32)])?;
        let taken = started.elapsed();
        ensure!(rows.len() == FETCHED, "{} events were fetched", rows.len());
        Ok(taken.as_secs_f64() * 1_000.0)
    }

    fn call(&mut self, sql: &str) -> Result<f64> {
        let statement = self.client.prepare(sql)?;
        let started = Instant::now();
        self.client.query(&statement, &[])?;
        Ok(started.elapsed().as_secs_f64() * 1_000.0)
    }
}
