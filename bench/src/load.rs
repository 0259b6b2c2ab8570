//! Bringing events into the tables before the clock runs.

use std::io::Write;

use anyhow::{Context, Result};
use postgres::Client;
use postgres::types::Json;

use crate::payload::Payload;

/// The org of everything that belongs to a single one.
pub const ORG: &str = "acme";
/// Its retention is long enough for whatever a run stores.
pub const TIER: &str = "premium";

pub const EMPTY_OURS: &str = "TRUNCATE tailstream.events, tailstream.batches";
pub const EMPTY_SEED: &str = "TRUNCATE log_events";

pub const COPY_OURS: &str = "COPY tailstream.events FROM STDIN";
pub const COPY_SEED: &str = "
    COPY log_events (created_at, org_id, host, method, path, status, response_time,
        response_size, user_agent, referrer, ip_address, metadata) FROM STDIN";

/// Registers the org of a single one's events.
pub fn register(client: &mut Client) -> Result<()> {
    client.execute("SELECT ts_set_org_tier($1, $2)", &[&ORG, &TIER]).context("cannot register the org")?;
    Ok(())
}

pub fn tier_id(client: &mut Client, tier: &str) -> Result<i16> {
    let row = client
        .query_one("SELECT id FROM tailstream.tiers WHERE name = $1", &[&tier])
        .with_context(|| format!("cannot find tier {tier}"))?;
    Ok(row.get(0))
}

/// Fills our empty table the way a user does, through `ts_ingest`.
pub fn ours(client: &mut Client, payload: &Payload) -> Result<()> {
    client.batch_execute(EMPTY_OURS).context("cannot empty our tables")?;
    register(client)?;
    let ingest = client.prepare("SELECT FROM ts_ingest($1, $2)")?;
    for batch in 0..payload.batches() {
        client
            .query(&ingest, &[&ORG, &Json(&*payload.json(batch)?)])
            .context("cannot store the events to measure with")?;
    }
    client.batch_execute("VACUUM ANALYZE tailstream.events").context("cannot analyse our table")
}

/// Fills the plan's empty table with the same.
pub fn seed(client: &mut Client, payload: &Payload) -> Result<()> {
    client.batch_execute(EMPTY_SEED).context("cannot empty the plan's table")?;
    for batch in 0..payload.batches() {
        copy(client, COPY_SEED, &payload.copy_seed(batch, ORG)?)?;
    }
    client.batch_execute("VACUUM ANALYZE log_events").context("cannot analyse the plan's table")
}

pub fn copy<T: ?Sized + postgres::ToStatement>(
    client: &mut Client,
    statement: &T,
    text: &[u8],
) -> Result<()> {
    let mut copy = client.copy_in(statement)?;
    copy.write_all(text)?;
    copy.finish()?;
    Ok(())
}
