//! Rows that the server makes itself, from a copy of all samples: faster than any client sends them.

use anyhow::{Context, Result};
use postgres::Client;

use crate::load::{COPY_SEED, ORG, copy};
use crate::payload::{BATCH, HOUR, Payload};
use crate::sample::Samples;

/// Which rows to make, evenly spread over a span of time and over orgs.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub count: i64,
    /// Microseconds since the epoch.
    pub start: i64,
    pub end: i64,
    /// Orgs are named with this and a number from 0.
    pub prefix: &'a str,
    pub orgs: i64,
}

/// A session with the samples in a temporary table, numbered from 0.
pub struct Generator {
    pub client: Client,
    samples: i64,
}

impl Generator {
    /// For our table.
    pub fn ours(mut client: Client, samples: &Samples) -> Result<Self> {
        make_template(&mut client, "tailstream.events")?;
        let payload = whole(samples);
        for batch in 0..payload.batches() {
            copy(&mut client, "COPY template FROM STDIN", &payload.copy_ours(batch, ORG, 0))?;
        }
        Self::number(client)
    }

    /// For the plan's table.
    pub fn seed(mut client: Client, samples: &Samples) -> Result<Self> {
        make_template(&mut client, "log_events")?;
        let payload = whole(samples);
        let statement = COPY_SEED.replace("log_events", "template");
        for batch in 0..payload.batches() {
            copy(&mut client, &statement, &payload.copy_seed(batch, ORG)?)?;
        }
        Self::number(client)
    }

    fn number(mut client: Client) -> Result<Self> {
        client
            .batch_execute(
                "CREATE TEMPORARY SEQUENCE template_number MINVALUE 0;
                 UPDATE template SET id = nextval('template_number');
                 ANALYZE template;",
            )
            .context("cannot number the samples")?;
        let samples = client.query_one("SELECT count(*) FROM template", &[])?.get(0);
        Ok(Self { client, samples })
    }

    /// Rows of a tier in our table, with ids as `ts_ingest` gives them to batches of 1,000.
    pub fn fill_ours(&mut self, rows: &Rows, tier: i16) -> Result<()> {
        let Rows { count, start, prefix, orgs, .. } = *rows;
        let (samples, step) = (self.samples, rows.step());
        let sql = format!(
            "INSERT INTO tailstream.events
             SELECT ((n / 1000 + 1) << 16) | n % 1000, to_timestamp(({start} + n * {step}) / 1e6),
                 '{prefix}' || n % {orgs}, host, method, path, status, response_time,
                 response_size, user_agent, referrer, ip_address, metadata, {tier}
             FROM generate_series(0::bigint, {count} - 1) n JOIN template ON template.id = n % {samples}"
        );
        self.client.batch_execute(&sql).context("cannot fill our table")
    }

    /// The same rows in the plan's table.
    pub fn fill_seed(&mut self, rows: &Rows) -> Result<()> {
        let Rows { count, start, prefix, orgs, .. } = *rows;
        let (samples, step) = (self.samples, rows.step());
        let sql = format!(
            "INSERT INTO log_events (created_at, org_id, host, method, path, status, response_time,
                 response_size, user_agent, referrer, ip_address, metadata)
             SELECT to_timestamp(({start} + n * {step}) / 1e6), '{prefix}' || n % {orgs}, host, method, path,
                 status, response_time, response_size, user_agent, referrer, ip_address, metadata
             FROM generate_series(0::bigint, {count} - 1) n JOIN template ON template.id = n % {samples}"
        );
        self.client.batch_execute(&sql).context("cannot fill the plan's table")
    }
}

impl Rows<'_> {
    /// Microseconds from one row to the next.
    fn step(&self) -> f64 {
        (self.end - self.start) as f64 / self.count.max(1) as f64
    }
}

fn make_template(client: &mut Client, table: &str) -> Result<()> {
    client
        .batch_execute(&format!("CREATE TEMPORARY TABLE template (LIKE {table})"))
        .context("cannot make a place for the samples")?;
    if table == "log_events" {
        client.batch_execute("ALTER TABLE template ALTER id SET DEFAULT 0")?;
    }
    Ok(())
}

/// All samples, each about once.
fn whole(samples: &Samples) -> Payload<'_> {
    Payload::within(samples, 0, HOUR, samples.count().div_ceil(BATCH))
}
