//! Reads the ledger and writes positions.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::{
    INT2ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8OID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZARRAYOID,
    TIMESTAMPTZOID, XID8OID,
};
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

use super::horizon::{Horizon, Ledger, Placed, Snapshot};
use super::{Order, place};
use crate::error::{Error, Result, spi};
use crate::statement::{Statement, arg, column};
use crate::tier::to_postgres_time;

const READING_BATCHES: &str = "reading batches";

thread_local! {
    static ADOPT: Statement = const { Statement::new("adopting the ledger", "SELECT tailstream.adopt_ledger()", &[]) };
    static SNAPSHOT: Statement = const { Statement::new(
        "taking a snapshot", "SELECT pg_catalog.pg_current_snapshot()::text", &[]) };
    static BASE: Statement = const { Statement::new(
        "reading the sequencer's state",
        "SELECT snapshot::text, after_seq FROM tailstream.sequencer", &[]) };
    static LAST: Statement = const { Statement::new(
        "reading the last position",
        "SELECT seq, (extract(epoch FROM placed_at) * 1000)::bigint, stream_seq + event_count, events_before + event_count
         FROM tailstream.positions ORDER BY seq DESC LIMIT 1", &[]) };
    static SEEN: Statement = const { Statement::new(
        "reading the last snapshot",
        "SELECT snapshot::text, partial FROM tailstream.positions
         WHERE seq > $1 AND snapshot IS NOT NULL ORDER BY seq DESC LIMIT 1", &[INT8OID]) };
    static NEXT_CHUNKS: Statement = const { Statement::new(
        "making chunks ahead", "SELECT tailstream.make_next_chunks($1::interval)", &[TEXTOID]) };
    static OF: Statement = const { Statement::new(
        "looking for batches",
        "SELECT xid::text::bigint, batch_id, org_id, tier, event_count, first_event_at, last_event_at, spot
         FROM tailstream.batches
         WHERE xid = $1 AND batch_id > $2 AND event_count > 0 ORDER BY xid, batch_id LIMIT $3",
        &[XID8OID, INT8OID, INT8OID]) };
    static FROM: Statement = const { Statement::new(
        "looking for batches",
        "SELECT xid::text::bigint, batch_id, org_id, tier, event_count, first_event_at, last_event_at, spot
         FROM tailstream.batches
         WHERE (xid, batch_id) > ($1, $2) AND event_count > 0 ORDER BY xid, batch_id LIMIT $3",
        &[XID8OID, INT8OID, INT8OID]) };
    static PLACE: Statement = const { Statement::new(
        "placing batches",
        "INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                           first_event_at, last_event_at, events_before, spot,
                                           snapshot, partial)
         SELECT u.seq, $1, u.stream_seq, u.batch_id, u.xid::text::xid8, u.org_id, u.tier, u.event_count,
                u.first_event_at, u.last_event_at, u.events_before, u.spot,
                CASE WHEN u.seq = $11 THEN $12::pg_snapshot END, CASE WHEN u.seq = $11 THEN $13 END
         FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $14, $15)
              u (seq, stream_seq, batch_id, xid, org_id, tier, event_count, first_event_at, last_event_at, events_before, spot)",
        &[TIMESTAMPTZOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, INT2ARRAYOID, INT4ARRAYOID,
          TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8OID, TEXTOID, TEXTOID, INT8ARRAYOID, TEXTARRAYOID,]) };
}

/// A batch that has no place yet.
pub struct Batch {
    xid: u64,
    batch_id: i64,
    org: String,
    tier: i16,
    events: i32,
    first: TimestampWithTimeZone,
    last: TimestampWithTimeZone,
    /// Where in the heap the events are.
    spot: Option<String>,
}

impl Batch {
    pub fn org(&self) -> &str {
        &self.org
    }
}

impl Placed for Batch {
    fn key(&self) -> (u64, i64) {
        (self.xid, self.batch_id)
    }
}

/// The rows of the ledger that this transaction's snapshot shows.
pub struct Reader;

impl Ledger for Reader {
    type Row = Batch;
    type Error = Error;

    fn of(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Batch>> {
        OF.with(|statement| batches(statement, xid, after, limit))
    }

    fn from(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Batch>> {
        FROM.with(|statement| batches(statement, xid, after, limit))
    }
}

fn batches(statement: &Statement, xid: u64, after: i64, limit: usize) -> Result<Vec<Batch>> {
    // SAFETY: an xid8 is 64 bits, as is the value.
    let xid = unsafe { DatumWithOid::new(xid as i64, pg_sys::Oid::from(XID8OID)) };
    let arguments = [xid, arg(after), arg(limit as i64)];
    Spi::connect_mut(|client| statement.run(client, &arguments)?.map(|row| batch(&row)).collect())
}

fn batch(row: &SpiHeapTupleData<'_>) -> Result<Batch> {
    Ok(Batch {
        xid: column::<i64>(row, 1, READING_BATCHES)? as u64,
        batch_id: column(row, 2, READING_BATCHES)?,
        org: column(row, 3, READING_BATCHES)?,
        tier: column(row, 4, READING_BATCHES)?,
        events: column(row, 5, READING_BATCHES)?,
        first: column(row, 6, READING_BATCHES)?,
        last: column(row, 7, READING_BATCHES)?,
        spot: optional(row, 8)?,
    })
}

fn optional<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData<'_>, number: usize) -> Result<Option<T>> {
    row.get::<T>(number).map_err(spi(READING_BATCHES))
}

/// The snapshot that this transaction reads with.
pub fn snapshot() -> Result<Snapshot> {
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

/// Reads where the sequencer left off.
pub fn load(positions: pg_sys::Oid) -> Result<Order> {
    Spi::connect_mut(|client| {
        ADOPT.with(|statement| statement.run(client, &[]).map(drop))?;
        let base = BASE.with(|statement| statement.run(client, &[]))?.first();
        let mut seen = base.get::<String>(1).map_err(spi("reading the sequencer's state"))?;
        let after_seq = base.get::<i64>(2).map_err(spi("reading the sequencer's state"))?.unwrap_or_default();
        let mut partial = String::new();
        let last_look = SEEN.with(|statement| statement.run(client, &[arg(after_seq)]))?;
        if !last_look.is_empty() {
            let last_look = last_look.first();
            seen = last_look.get::<String>(1).map_err(spi("reading the last snapshot"))?;
            partial =
                last_look.get::<String>(2).map_err(spi("reading the last snapshot"))?.unwrap_or_default();
        }
        let horizon = seen.and_then(|seen| Horizon::new(seen.parse().ok()?, &partial).ok());
        let horizon = horizon.ok_or(Error::Internal("a snapshot that cannot be read"))?;
        // Erasure may have taken the last positions before `after_seq`; their numbers are not given again.
        let mut counter = place::Counter { seq: after_seq + 1, ..Default::default() };
        let last = LAST.with(|statement| statement.run(client, &[]))?;
        if !last.is_empty() {
            let last = last.first();
            let number = |column| -> Result<i64> {
                let value = last.get::<i64>(column).map_err(spi("reading the last position"))?;
                value.ok_or(Error::Internal("a NULL in the last position"))
            };
            counter = place::Counter {
                seq: counter.seq.max(number(1)? + 1),
                ms: number(2)?,
                stream_seq: number(3)?,
                events: number(4)?,
            };
        }
        Ok(Order { positions, horizon, counter })
    })
}

/// Makes the chunks that will be written to so far ahead, where there are such now.
pub fn make_next_chunks(ahead: &str) -> Result<()> {
    Spi::connect_mut(|client| {
        NEXT_CHUNKS.with(|chunks| chunks.run(client, &[arg(ahead.to_owned())]).map(drop))
    })
}

/// Writes the places of these batches, and on the last one what has been seen.
pub fn place(batches: &[Batch], order: &mut Order) -> Result<()> {
    let places: Vec<_> = batches.iter().map(|batch| order.counter.take(batch.events.into())).collect();
    let Some(last) = places.last() else { return Ok(()) };
    let placed_at = TimestampWithTimeZone::try_from(to_postgres_time(last.ms * 1_000))
        .map_err(|_| Error::Internal("a clock out of range"))?;
    let arguments = [
        arg(placed_at),
        arg(places.iter().map(|place| place.seq).collect::<Vec<_>>()),
        arg(places.iter().map(|place| place.stream_seq).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.batch_id).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.xid as i64).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.org.clone()).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.tier).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.events).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.first).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.last).collect::<Vec<_>>()),
        arg(last.seq),
        arg(order.horizon.seen().to_string()),
        arg(order.horizon.partial()),
        arg(places.iter().map(|place| place.events_before).collect::<Vec<_>>()),
        arg(batches.iter().map(|batch| batch.spot.clone()).collect::<Vec<_>>()),
    ];
    Spi::connect_mut(|client| PLACE.with(|statement| statement.run(client, &arguments).map(drop)))
}
