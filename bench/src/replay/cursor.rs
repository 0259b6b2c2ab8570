//! Consuming an org's events by a durable cursor, against a SELECT by hand of the same rows.

use anyhow::{Context as _, Result, ensure};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Client, GenericClient, Statement};
use serde_json::json;

use super::walk::{IN_ORDER, SELECT, Walk};
use crate::backend::Backend;
use crate::context::Context;
use crate::load::{self, ORG};
use crate::mirror::Mirror;
use crate::payload::Payload;
use crate::results::Results;
use crate::round::{Contender, Measure, duel};
use crate::statistics::median;

pub const DATABASE: &str = "cursor";
/// Events fetched at once.
const FETCH: usize = 1_000;
/// Consumed in all before the cursors' table is measured, and what it may have by then.
const CONSUMED: u64 = 1_000_000;
const MAX_BYTES: i64 = 1 << 20;
const NO_PARAMETERS: [&(dyn ToSql + Sync); 0] = [];

pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let options = context.options;
    // A cursor needs the sequencer and no mirror.
    let mirror = Mirror::start(context.server, DATABASE)?;
    mirror.enable(false)?;
    let payload = Payload::recent(context.samples, options.size(200, 50));
    let mut control = mirror.connect()?;
    load::ours(&mut control, &payload)?;
    mirror.wait_until_placed()?;
    control.batch_execute("VACUUM ANALYZE tailstream.positions").context("cannot analyse the positions")?;

    let (rounds, times, expected) = (options.size(15, 3), options.size(2, 4), payload.events() as u64);
    let mut ours = Consumer::new(mirror.connect()?, "arrival", expected, times)?;
    let sql = format!("{SELECT}{IN_ORDER}");
    let mut theirs = Walk::new(mirror.connect()?, "SELECT", &sql, payload.span(), expected, times)?;
    let measured = duel(context.server, rounds, &mut ours, &mut theirs)?;
    let rows = json!({ "stored": expected, "fetched_at_once": FETCH });
    results.add_duel("cursor_vs_select", "/s", &measured, &rows);
    results.add_absolute("cursor_events_per_s", measured.ours.rate());

    ours.begins = true;
    results.add_absolute("cursor_in_transactions_events_per_s", rate(&mut ours, rounds)?);
    let mut by_time = Consumer::new(mirror.connect()?, "event_time", expected, times)?;
    results.add_absolute("cursor_by_event_time_events_per_s", rate(&mut by_time, rounds)?);
    while ours.consumed + by_time.consumed < CONSUMED {
        ours.run()?;
    }
    measure_table(&mut control, results)?;
    drop((control, ours, theirs, by_time));
    mirror.enable(true)?;
    mirror.stop()
}

/// Events a second, without anybody to compare with.
fn rate(consumer: &mut Consumer, rounds: usize) -> Result<f64> {
    consumer.prepare()?;
    let rates = (0..rounds).map(|_| Ok(consumer.run()?.rate())).collect::<Result<Vec<_>>>()?;
    Ok(median(&rates))
}

/// The size of the cursors' table.
fn measure_table(client: &mut Client, results: &mut Results) -> Result<()> {
    let sql = "SELECT pg_total_relation_size('tailstream.durable_cursors')";
    let bytes: i64 = client.query_one(sql, &[]).context("cannot measure the cursors' table")?.get(0);
    results.add_absolute("durable_cursors_after_1m_events_bytes", bytes as f64);
    ensure!(bytes < MAX_BYTES, "the table of cursors has grown to {bytes} bytes");
    Ok(())
}

/// Fetches everything from the beginning, and moves the cursor with each fetch: that is one statement and one
/// transaction, committed before its end is told.
struct Consumer {
    client: Client,
    backend: Backend,
    name: String,
    fetch: Statement,
    seek: Statement,
    expected: u64,
    times: usize,
    consumed: u64,
    /// With BEGIN and COMMIT, as a consumer that stores its results in the same transaction: three round trips instead of one.
    begins: bool,
}

impl Consumer {
    /// A cursor that is named after its order.
    fn new(mut client: Client, order: &str, expected: u64, times: usize) -> Result<Self> {
        client
            .execute("SELECT ts_cursor_create($1, $2, 'beginning', order_by => $1)", &[&order, &ORG])
            .with_context(|| format!("cannot create a cursor in order of {order}"))?;
        let backend = Backend::of(&mut client)?;
        let sql = format!("SELECT * FROM ts_cursor_fetch('{order}', {FETCH}, auto_ack => true)");
        let fetch = client.prepare(&sql).context("cannot prepare the fetch")?;
        let seek = client.prepare(&format!("SELECT ts_cursor_seek('{order}', 'beginning')"))?;
        let name = format!("ts_cursor_fetch, {order}");
        Ok(Self { client, backend, name, fetch, seek, expected, times, consumed: 0, begins: false })
    }

    fn consume(&mut self) -> Result<()> {
        self.client.execute(&self.seek, &[]).context("cannot go back to the beginning")?;
        let mut consumed = 0;
        loop {
            let rows = if self.begins {
                let mut transaction = self.client.transaction()?;
                let rows = count(&mut transaction, &self.fetch)?;
                transaction.commit()?;
                rows
            } else {
                count(&mut self.client, &self.fetch)?
            };
            if rows == 0 {
                break;
            }
            consumed += rows;
        }
        ensure!(consumed == self.expected, "{consumed} events came instead of {}", self.expected);
        self.consumed += consumed;
        Ok(())
    }
}

/// Reads all rows, as `Walk` does.
fn count(client: &mut impl GenericClient, fetch: &Statement) -> Result<u64> {
    let mut rows = client.query_raw(fetch, NO_PARAMETERS)?;
    let mut count = 0;
    while rows.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

impl Contender for Consumer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    /// Brings everything into memory.
    fn prepare(&mut self) -> Result<()> {
        self.consume()
    }

    fn run(&mut self) -> Result<Measure> {
        Measure::of(|| {
            for _ in 0..self.times {
                self.consume()?;
            }
            Ok(self.expected * self.times as u64)
        })
    }
}
