//! Reading batches of one event back: for `ts_mirror_verify()`, and for a stream that is made again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Mirror, wait_until};
use crate::context::Context;
use crate::load::ORG;
use crate::results::{Finding, Results};
use crate::screen::{self, number};

pub const DATABASE: &str = "mirror_single";
/// Batches of a transaction.
const TOGETHER: usize = 500;

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let entries = context.options.size(50_000, 5_000);
    let rounds = context.options.size(3, 2);
    let mirror = Mirror::start(context.server, DATABASE)?;
    let mut client = mirror.connect()?;
    client.batch_execute(
        "SELECT ts_create_tier('large', '7 days', 1000000); SELECT ts_set_org_tier('acme', 'large')",
    )?;
    for from in (0..entries).step_by(TOGETHER) {
        let sql = "SELECT count(i.batch_id) FROM generate_series($1::int, $2::int) n,
                          LATERAL ts_ingest('acme', json_build_array(json_build_object('path', '/' || n, 'status', 200, 'host', 'web-1'))) i";
        client.query_one(sql, &[&(from as i32), &((from + TOGETHER - 1) as i32)])?;
        screen::progress("Storing batches of one event", from + TOGETHER, entries);
    }
    mirror.wait_until_sent()?;
    context.server.checkpoint()?;
    let mut redis = mirror.redis().connect()?;
    let stream = mirror.stream(ORG)?;
    let (mut verified, mut resynced) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let started = Instant::now();
        let matching = mirror.verify(ORG)?;
        verified.push(matching as f64 / started.elapsed().as_secs_f64());
        ensure!(matching as usize == entries, "{matching} of {entries} entries were verified");

        let started = Instant::now();
        client.batch_execute("SELECT ts_set_mirror('acme', true, backfill => '1 day')")?;
        wait_until("the stream to be made again", Duration::from_millis(5), || {
            let left: i64 = client.query_one("SELECT count(*) FROM tailstream.mirror_rebuilds", &[])?.get(0);
            Ok(left == 0)
        })?;
        resynced.push(entries as f64 / started.elapsed().as_secs_f64());
        let length: usize = redis::cmd("XLEN").arg(&stream).query(&mut redis).context("XLEN")?;
        ensure!(length == entries, "the stream has {length} entries");
    }
    for (key, mut rates) in [("verify_entries_per_s", verified), ("resync_entries_per_s", resynced)] {
        rates.sort_unstable_by(f64::total_cmp);
        let value = rates[rates.len() / 2];
        let finding = Finding { value, ours: format!("{} /s", number(value)), theirs: String::new() };
        results.add(key, finding, json!({ "entries": entries, "rounds": rates }));
    }
    drop(client);
    mirror.stop()
}
