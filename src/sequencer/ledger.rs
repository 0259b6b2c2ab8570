//! Reads the ledger and writes positions.

use pgrx::pg_sys::BuiltinOid::{
    INT2ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8OID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZARRAYOID,
    TIMESTAMPTZOID, XID8OID,
};
use pgrx::prelude::*;
use pgrx::{PgBuiltInOids, pg_sys};

use super::receipt_bounds::ReceiptBounds;
use super::snapshot_tracker::{Ledger, Sequenced, Snapshot, SnapshotTracker};
use super::{Order, committing, sequence};
use crate::batch_reader::order;
use crate::error::{Error, Result, spi};
use crate::pg::snapshot;
use crate::pg::statement::{Statement, arg};
use crate::pg::streaming::{SlotRow, Visibility};
use crate::pg::time::to_postgres_time;
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans};

/// Transaction, batch, limit, and the earliest receive time.
const POLL: [PgBuiltInOids; 4] = [XID8OID, INT8OID, INT8OID, TIMESTAMPTZOID];
/// The time bounds of a poll are multiples of this: microseconds. It is the default chunk interval of the ledger.
const WINDOW_UNIT: i64 = 6 * 3_600 * 1_000_000;

thread_local! {
    static ADOPT: Statement = const { Statement::new("adopting the ledger", "SELECT tailstream.adopt_ledger()", &[]) };
    static SNAPSHOT: Statement = const { Statement::new(
        "taking a snapshot", "SELECT pg_catalog.pg_current_snapshot()::text", &[]) };
    static BASE: Statement = const { Statement::new(
        "reading the sequencer's state",
        "SELECT snapshot::text, after_seq FROM tailstream.sequencer", &[]) };
    static NEXT_CHUNK: Statement = const { Statement::new(
        "making chunks ahead", "SELECT tailstream.make_next_chunk($1::interval)", &[TEXTOID]) };
    static POLLS: TimeWindowPlans = TimeWindowPlans::new("b.received_at", &POLL, WINDOW_UNIT);
    static PLACE: Statement = const { Statement::new(
        "placing batches",
        "INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                           first_event_at, last_event_at, events_before, block_hint,
                                           snapshot, partial, unpolled_since)
         SELECT u.seq, $1, u.stream_seq, u.batch_id, u.xid::text::xid8, u.org_id, u.tier, u.event_count,
                u.first_event_at, u.last_event_at, u.events_before, u.block_hint,
                CASE WHEN u.seq = $11 THEN $12::pg_snapshot END, CASE WHEN u.seq = $11 THEN $13 END,
                CASE WHEN u.seq = $11 THEN $16 END
         FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $14, $15)
              u (seq, stream_seq, batch_id, xid, org_id, tier, event_count, first_event_at, last_event_at, events_before, block_hint)",
        &[TIMESTAMPTZOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, INT2ARRAYOID, INT4ARRAYOID,
          TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8OID, TEXTOID, TEXTOID, INT8ARRAYOID, TEXTARRAYOID,
          TIMESTAMPTZOID,]) };
}

/// A batch that has no position yet.
pub struct Batch {
    xid: u64,
    batch_id: i64,
    org: String,
    tier: i16,
    events: i32,
    first: TimestampWithTimeZone,
    last: TimestampWithTimeZone,
    /// The block hint: where in the heap the events are.
    block_hint: Option<String>,
}

impl Batch {
    pub fn org(&self) -> &str {
        &self.org
    }
}

impl Sequenced for Batch {
    fn key(&self) -> (u64, i64) {
        (self.xid, self.batch_id)
    }
}

/// The rows of the ledger that this transaction's snapshot shows.
pub struct Reader<'a> {
    pub bounds: &'a ReceiptBounds,
}

impl Ledger for Reader<'_> {
    type Row = Batch;
    type Error = Error;

    fn of(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Batch>> {
        batches("b.xid = $1 AND b.batch_id > $2", (xid, after), self.bounds.since(xid), limit)
    }

    fn from(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Batch>> {
        batches("(b.xid, b.batch_id) > ($1, $2)", (xid, after), self.bounds.since(xid), limit)
    }
}

/// The batches that match a condition and were not received before a time.
fn batches(condition: &str, (xid, after): (u64, i64), since: i64, limit: usize) -> Result<Vec<Batch>> {
    let since = if since == i64::MIN { since } else { to_postgres_time(since) };
    let sql = format!(
        "SELECT b.xid::text::bigint, b.batch_id, b.org_id, b.tier, b.event_count, b.first_event_at, b.last_event_at, b.block_hint
         FROM tailstream.batches b
         WHERE {condition} AND b.event_count > 0 AND b.received_at >= $4{PLACEHOLDER}
         ORDER BY b.xid, b.batch_id LIMIT $3"
    );
    let values = [xid as i64, after, limit as i64, since].map(|value| Some(value.into()));
    let mut found = Vec::new();
    Spi::connect_mut(|_| {
        let plan = POLLS.with(|plans| plans.get(sql, (since, i64::MAX)))?;
        plan.each(values, Visibility::NewSnapshot, |row| {
            found.push(batch(&row));
            true
        })
    })?;
    found.into_iter().collect()
}

fn batch(row: &SlotRow<'_>) -> Result<Batch> {
    let missing = || Error::Internal("a NULL in the ledger");
    let number = |column| row.int8(column).ok_or_else(missing);
    let small = |column| row.int4(column).ok_or_else(missing);
    let time = |column| {
        TimestampWithTimeZone::try_from(number(column)?).map_err(|_| Error::Internal("a time out of range"))
    };
    Ok(Batch {
        xid: number(0)? as u64,
        batch_id: number(1)?,
        org: row.text(2).ok_or_else(missing)?.to_owned(),
        tier: small(3)? as i16,
        events: small(4)?,
        first: time(5)?,
        last: time(6)?,
        block_hint: row.text(7).map(str::to_owned),
    })
}

/// The snapshot that this transaction reads with.
pub fn present() -> Result<Snapshot> {
    let text = first_text(&SNAPSHOT)?;
    text.parse().map_err(|()| Error::Internal("a snapshot that cannot be read"))
}

fn first_text(statement: &'static std::thread::LocalKey<Statement>) -> Result<String> {
    Spi::connect_mut(|client| {
        let table = statement.with(|statement| statement.run(client, &[]))?.first();
        table
            .get::<String>(1)
            .map_err(spi("reading"))?
            .ok_or(Error::Internal("a NULL where a text should be"))
    })
}

/// Loads the state of the sequencer's last poll.
pub fn load(positions: pg_sys::Oid) -> Result<Order> {
    let reading = || spi("reading the sequencer's state");
    let (seen, after_seq) = Spi::connect_mut(|client| {
        ADOPT.with(|statement| statement.run(client, &[]).map(drop))?;
        let base = BASE.with(|statement| statement.run(client, &[]))?.first();
        let seen = base.get::<String>(1).map_err(reading())?;
        Ok((seen, base.get::<i64>(2).map_err(reading())?.unwrap_or_default()))
    })?;
    // The snapshot must see rows that this transaction adopted.
    snapshot::current(|| {
        let poll = order::last_poll_after(after_seq)?;
        let (seen, partial, unpolled_since) =
            poll.map_or((seen, None, None), |poll| (poll.snapshot, poll.partial, poll.unpolled_since));
        let tracker = seen
            .and_then(|seen| SnapshotTracker::new(seen.parse().ok()?, partial.as_deref().unwrap_or("")).ok());
        let tracker = tracker.ok_or(Error::Internal("a snapshot that cannot be read"))?;
        // An erasure may have removed the last positions before `after_seq`; their numbers are not assigned again.
        let mut counter = sequence::Counter { seq: after_seq + 1, ..Default::default() };
        if let Some(last) = order::head()? {
            counter = sequence::Counter {
                seq: counter.seq.max(last.seq + 1),
                ms: last.ms(),
                stream_seq: last.stream_seq + last.events,
                events: last.events_before + last.events,
            };
        }
        let foreign_xids = open_foreign_xids()?;
        Ok(Order { positions, tracker, counter, bounds: ReceiptBounds::new(), foreign_xids, unpolled_since })
    })
}

/// The open transactions of other databases.
fn open_foreign_xids() -> Result<Vec<u64>> {
    let reading = || spi("reading open transactions");
    let sql = "SELECT a.backend_xid::text::bigint FROM pg_catalog.pg_stat_get_activity(NULL) a
               WHERE a.backend_xid IS NOT NULL
                 AND a.datid <> (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
               UNION ALL
               SELECT p.transaction::text::bigint FROM pg_catalog.pg_prepared_xacts p
               WHERE p.database <> pg_catalog.current_database()";
    // SAFETY: reads shared memory.
    let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    Spi::connect(|client| {
        let rows = client.select(sql, None, &[]).map_err(reading())?;
        rows.map(|row| {
            let xid = row.get::<i64>(1).map_err(reading())?.unwrap_or_default();
            Ok(committing::full(xid as u32, next))
        })
        .collect()
    })
}

/// Creates one missing chunk that will be needed within `ahead`; returns whether one was missing.
pub fn make_next_chunk(ahead: &str) -> Result<bool> {
    Spi::connect_mut(|client| {
        let made = NEXT_CHUNK.with(|chunk| chunk.run(client, &[arg(ahead.to_owned())]))?.first();
        made.get::<bool>(1).map_err(spi("making chunks ahead")).map(|made| made == Some(true))
    })
}

/// Stores the positions of these batches, and on the last one what has been seen.
pub fn store_positions(batches: &[Batch], order: &mut Order) -> Result<()> {
    let sequences: Vec<_> = batches.iter().map(|batch| order.counter.take(batch.events.into())).collect();
    let Some(last) = sequences.last() else { return Ok(()) };
    let placed_at = TimestampWithTimeZone::try_from(to_postgres_time(last.ms * 1_000))
        .map_err(|_| Error::Internal("a clock out of range"))?;
    let arguments = [
        arg(placed_at),
        arg(sequences.iter().map(|sequence| sequence.seq).collect::<Vec<_>>()),
        arg(sequences.iter().map(|sequence| sequence.stream_seq).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.batch_id).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.xid as i64).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.org.clone()).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.tier).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.events).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.first).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.last).collect::<Vec<_>>()),
        arg(last.seq),
        arg(order.tracker.seen().to_string()),
        arg(order.tracker.partial()),
        arg(sequences.iter().map(|sequence| sequence.events_before).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.block_hint.clone()).collect::<Vec<_>>()),
        arg(unpolled_since(order)),
    ];
    Spi::connect_mut(|client| PLACE.with(|statement| statement.run(client, &arguments).map(drop)))
}

/// The earliest receive time of rows that this poll has not seen; `None` if it is not known. The last poll before this
/// process started did not see transactions that began before it either.
fn unpolled_since(order: &Order) -> Option<TimestampWithTimeZone> {
    let since = order.bounds.since(order.tracker.first_unseen());
    let since = if since == i64::MIN { order.unpolled_since? } else { to_postgres_time(since) };
    TimestampWithTimeZone::try_from(since).ok()
}
