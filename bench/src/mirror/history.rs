//! The cost of a long history for calls that do not read it: the same calls in turn in a database with few chunks of positions
//! and in one with many.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use postgres::Client;
use redis::Connection;
use serde_json::json;

use super::{Mirror, POLL, wait_until};
use crate::context::Context;
use crate::load::ORG;
use crate::results::{Finding, Results};
use crate::screen::{self, number as number_of};
use crate::statistics::percentile;

pub const DATABASE: &str = "mirror_history";
pub const SHORT: &str = "mirror_short";
const STREAM_KEY: &str = "bench:{database}:{org}";
/// The number of chunks of a tier with a year of retention.
const CHUNKS: usize = 1_436;
const KEYS: [&str; 5] = [
    "history_cost_commit_to_xread",
    "history_cost_fetch",
    "history_cost_replay_live",
    "history_cost_mirror_status",
    "history_cost_set_org_tier",
];
const WARM_UP: usize = 20;
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

struct History {
    client: Client,
    redis: Connection,
    stream: String,
    last_id: String,
    /// Milliseconds of each call, in the order of the keys.
    times: [Vec<f64>; 5],
}

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let chunks = context.options.size(CHUNKS, 200) as i64;
    let calls = context.options.size(300, 60);
    let mirror = Mirror::start(context.server, DATABASE)?;
    mirror.set("tailstream.stream_key", STREAM_KEY)?;
    mirror.set("tailstream.databases", &format!("{DATABASE},{SHORT}"))?;
    let mut few = History::begin(context, &mirror, SHORT)?;
    let mut many = History::begin(context, &mirror, DATABASE)?;
    let started = Instant::now();
    for first in (1..=chunks).step_by(100) {
        let last = (first + 99).min(chunks);
        many.client.execute(POSITIONS, &[&first, &last, &ORG]).context("cannot make a history")?;
        screen::progress("Making chunks", last as usize, chunks as usize);
    }
    results.add_absolute("history_made_s", started.elapsed().as_secs_f64());
    let found = many.chunks()?;
    ensure!(found + 1 >= chunks, "{found} chunks instead of {chunks}");
    // Plans become others when they have been used for a while.
    for call in 0..calls + WARM_UP {
        if call == WARM_UP {
            few.times = Default::default();
            many.times = Default::default();
        }
        few.measure()?;
        many.measure()?;
    }
    let of_few = few.chunks()?;
    for (number, key) in KEYS.into_iter().enumerate() {
        let [(few, few_99), (many, many_99)] = [&few, &many].map(|history| {
            (percentile(&history.times[number], 50.0), percentile(&history.times[number], 99.0))
        });
        let finding = Finding {
            value: many / few,
            ours: format!("{} ms with {found} chunks", number_of(many)),
            theirs: format!("{} ms with {of_few}", number_of(few)),
        };
        let detail = json!({ "calls": calls, "few_ms": { "p50": few, "p99": few_99 }, "many_ms": { "p50": many, "p99": many_99 } });
        results.add(key, finding, detail);
    }
    drop((few, many));
    mirror.alter("RESET tailstream.stream_key")?;
    mirror.set("tailstream.databases", DATABASE)?;
    context.server.drop_database(SHORT)?;
    mirror.stop()
}

impl History {
    fn begin(context: &Context, mirror: &Mirror<'_>, database: &str) -> Result<Self> {
        let mut client = context.server.connect(database)?;
        client.batch_execute(
            "SELECT ts_create_tier('year', '365 days'), ts_create_tier('half', '180 days');
             SELECT ts_set_org_tier('acme', 'year'); SELECT ts_cursor_create('fetched', 'acme', 'now')",
        )?;
        let stream = client.query_one("SELECT stream_key FROM ts_mirror_status($1)", &[&ORG])?.get(0);
        let redis = mirror.redis().connect()?;
        Ok(Self { client, redis, stream, last_id: "0".to_owned(), times: Default::default() })
    }

    fn chunks(&mut self) -> Result<i64> {
        let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tailstream.positions'::regclass";
        Ok(self.client.query_one(sql, &[])?.get(0))
    }

    fn measure(&mut self) -> Result<()> {
        let taken = [
            self.commit_to_xread()?,
            self.fetch()?,
            self.call("SELECT * FROM ts_replay_live('acme', clock_timestamp() - interval '1 minute')")?,
            self.call("SELECT * FROM ts_mirror_status()")?,
            self.call("SELECT ts_set_org_tier('acme', 'half')")?
                + self.call("SELECT ts_set_org_tier('acme', 'year')")?,
        ];
        self.times.iter_mut().zip(taken).for_each(|(times, taken)| times.push(taken));
        Ok(())
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
        let sent = "SELECT backlog_events = 0 FROM ts_mirror_status()";
        wait_until("everything to be mirrored", POLL, || Ok(self.client.query_one(sent, &[])?.get(0)))?;
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
