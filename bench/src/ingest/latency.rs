//! How long one event takes that is sent alone.

use std::time::Instant;

use anyhow::{Context as _, Result};
use postgres::types::Json;
use serde_json::value::RawValue;
use tailstream_devkit::event::now_micros;

use crate::context::Context;
use crate::load::{EMPTY_OURS, ORG, register};
use crate::results::Results;
use crate::server::OURS;
use crate::statistics::percentile;

const WARM_UP: usize = 100;

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let calls = context.options.size(3_000, 500);
    for (commit, name) in [("on", "ingest_1"), ("off", "ingest_1_without_fsync_wait")] {
        let micros = call_alone(context, commit, calls)?;
        for percent in [50, 95, 99] {
            results.add_absolute(&format!("{name}_p{percent}_us"), percentile(&micros, f64::from(percent)));
        }
    }
    Ok(())
}

/// Microseconds of each call.
fn call_alone(context: &Context, synchronous_commit: &str, calls: usize) -> Result<Vec<f64>> {
    let mut client = context.server.connect(OURS)?;
    client.batch_execute(EMPTY_OURS).context("cannot empty our tables")?;
    register(&mut client)?;
    client.batch_execute(&format!("SET synchronous_commit = {synchronous_commit}"))?;
    let ingest = client.prepare("SELECT accepted FROM ts_ingest($1, $2)")?;
    context.server.checkpoint()?;
    let mut micros = Vec::new();
    for call in 0..WARM_UP + calls {
        let sample = context.samples.get(call);
        let address = sample.ip_address.map(|address| address.to_string());
        let event = RawValue::from_string(sample.to_json(now_micros(), address.as_deref())?)?;
        let started = Instant::now();
        client.query_one(&ingest, &[&ORG, &Json(&*event)])?;
        if call >= WARM_UP {
            micros.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(micros)
}
