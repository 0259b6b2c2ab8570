//! Reads the events of a batch back, as entries of a stream.
//!
//! The batch's tier and event times tell the chunks, so each is asked by itself with a plan of its own: a query of
//! the hypertable would be planned over all chunks, or executed over all. If that does not bring all events (they
//! were copied into another tier, or are gone) the hypertable is asked.

use std::cell::RefCell;
use std::collections::HashMap;

use core::ffi::CStr;

use pgrx::PgBuiltInOids;
use pgrx::pg_sys::BuiltinOid::{INETOID, INT4OID, INT8OID, JSONBOID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;
use pgrx::{pg_sys, spi::Spi};

use super::heap;
use super::part::{Entry, MAX_BYTES};
use crate::error::{Error, Result};
use crate::event::{EventColumns, Inet, encode};
use crate::ingest::Spot;
use crate::statement::arg;
use crate::statement::raw::{RawPlan, RawRow};
use crate::tier::to_unix_time;
use crate::worker::transaction;

/// Plans kept; beyond it all are made anew.
const MAX_PLANS: usize = 256;

/// Bytes of entries that are read at once; one event may be larger.
const MAX_GATHERED: usize = 4 * MAX_BYTES;

/// What an entry is made of.
const COLUMNS: [(&str, PgBuiltInOids); 12] = [
    ("id", INT8OID),
    ("created_at", TIMESTAMPTZOID),
    ("host", TEXTOID),
    ("method", TEXTOID),
    ("path", TEXTOID),
    ("status", INT4OID),
    ("response_time", INT4OID),
    ("response_size", INT8OID),
    ("user_agent", TEXTOID),
    ("referrer", TEXTOID),
    ("ip_address", INETOID),
    ("metadata", JSONBOID),
];
const CONDITION: &str = "org_id = $1 AND created_at >= $2 AND created_at <= $3 AND id >= $4 AND id < $5";

/// A batch that has its place.
#[derive(Debug, Clone)]
pub struct Position {
    pub seq: i64,
    /// Milliseconds since the Unix epoch.
    pub ms: i64,
    pub stream_seq: i64,
    pub batch_id: i64,
    pub tier: i16,
    pub events: i32,
    pub first: TimestampWithTimeZone,
    pub last: TimestampWithTimeZone,
    /// Where in the heap the events may be.
    pub spot: Option<Spot>,
}

/// A chunk of events and the time range it takes, in PostgreSQL's microseconds.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    relation: pg_sys::Oid,
    tier: i16,
    start: i64,
    end: i64,
}

thread_local! {
    static CHUNKS: RefCell<Vec<Chunk>> = const { RefCell::new(Vec::new()) };
    /// By chunk; the hypertable has no number.
    static PLANS: RefCell<HashMap<u32, RawPlan>> = RefCell::default();
}

/// The entries for the events of a batch from `offset` on, in their order, up to `end`; moves `end` down where they would
/// be too large together. Those that are gone are left out.
pub fn read(org: &str, position: &Position, offset: i32, end: &mut i32) -> Result<Vec<Entry>> {
    loop {
        let mut gathered = Gathered { wanted: (*end - offset) as usize, ..Gathered::default() };
        gather(org, position, offset, *end, &mut gathered)?;
        if !gathered.is_too_large() {
            gathered.entries.sort_unstable_by_key(|entry| entry.event_id);
            gathered.entries.dedup_by_key(|entry| entry.event_id);
            return Ok(gathered.entries);
        }
        *end = offset + (*end - offset) / 2;
    }
}

/// Entries as they are read.
#[derive(Default)]
struct Gathered {
    entries: Vec<Entry>,
    wanted: usize,
    bytes: usize,
}

impl Gathered {
    /// Returns whether there may be more.
    fn add(&mut self, entry: Entry) -> bool {
        self.bytes += entry.data.len();
        self.entries.push(entry);
        !self.is_too_large()
    }

    /// A single event is never too large.
    fn is_too_large(&self) -> bool {
        self.bytes > MAX_GATHERED && self.wanted > 1
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

fn gather(org: &str, position: &Position, offset: i32, end: i32, gathered: &mut Gathered) -> Result<()> {
    let ids = (position.batch_id << 16) + i64::from(offset)..(position.batch_id << 16) + i64::from(end);
    let (first, last) = (micros(position.first), micros(position.last));
    let values = |first: i64, last: i64| -> Result<[pg_sys::Datum; 5]> {
        let org = org.into_datum().ok_or(Error::Internal("an org without id"))?;
        Ok([org, first.into(), last.into(), ids.start.into(), ids.end.into()])
    };
    let chunks = chunks_of(position.tier, first, last)?;
    // Any other relation may have got that number since the hint was written down.
    let is_known = |spot: &&Spot| chunks.iter().any(|chunk| chunk.relation.to_u32() == spot.chunk);
    if let Some(spot) = position.spot.as_ref().filter(is_known) {
        heap::scan(spot, &COLUMNS, |row| {
            let ours = row.int8(0).is_some_and(|id| ids.contains(&id));
            !ours || gathered.add(entry(row, position))
        });
        if gathered.entries.len() == gathered.wanted || gathered.is_too_large() {
            return Ok(());
        }
        gathered.clear();
    }
    for chunk in chunks {
        if !exists(chunk.relation) {
            CHUNKS.with_borrow_mut(|chunks| chunks.retain(|other| other.relation != chunk.relation));
            continue;
        }
        run(chunk.relation, values(first.max(chunk.start), last.min(chunk.end - 1))?, position, gathered)?;
    }
    // They may have been copied into another chunk while this waited for the old one: then neither that nor the copies are
    // in the snapshot that was taken before. And the hypertable's chunks may have to be waited for in the same way. After the
    // first attempt all of them are locked, and a snapshot taken then shows every event that is there at all.
    for _ in 0..2 {
        if gathered.entries.len() >= gathered.wanted || gathered.is_too_large() {
            break;
        }
        gathered.clear();
        let values = values(first, last)?;
        transaction::with_latest_snapshot(|| run(pg_sys::InvalidOid, values, position, gathered))?;
    }
    Ok(())
}

/// Whether an org's event has, or had, this stream id.
pub fn was_placed(org: &str, (ms, seq): (i64, i64)) -> Result<bool> {
    let found = Spi::get_one_with_args::<bool>(
        "SELECT EXISTS (SELECT FROM tailstream.positions
                        WHERE org_id = $1 AND placed_at = to_timestamp($2 / 1000.0)
                          AND stream_seq <= $3 AND $3 < stream_seq + event_count)",
        &[arg(org.to_owned()), arg(ms), arg(seq)],
    );
    found.map_err(crate::error::spi("looking for a position")).map(|found| found == Some(true))
}

fn micros(time: TimestampWithTimeZone) -> i64 {
    pg_sys::TimestampTz::from(time)
}

/// Whether the relation is still there; it then stays until the end of the transaction.
fn exists(relation: pg_sys::Oid) -> bool {
    // SAFETY: takes a lock as any SELECT does, and keeps it.
    unsafe {
        let opened = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as i32);
        if !opened.is_null() {
            pg_sys::relation_close(opened, pg_sys::NoLock as i32);
        }
        !opened.is_null()
    }
}

/// The known chunks of a tier in this range of time; looks for new ones if the first or the last event has none.
fn chunks_of(tier: i16, first: i64, last: i64) -> Result<Vec<Chunk>> {
    let find = || {
        CHUNKS.with_borrow(|chunks| {
            let touches = |chunk: &&Chunk| chunk.tier == tier && chunk.start <= last && first < chunk.end;
            chunks.iter().filter(touches).copied().collect::<Vec<_>>()
        })
    };
    let covers =
        |found: &[Chunk], time: i64| found.iter().any(|chunk| chunk.start <= time && time < chunk.end);
    let found = find();
    if covers(&found, first) && covers(&found, last) {
        return Ok(found);
    }
    let chunks = all_chunks()?;
    CHUNKS.set(chunks);
    Ok(find())
}

fn all_chunks() -> Result<Vec<Chunk>> {
    let sql = "SELECT chunk::oid, tier, range_start, range_end FROM tailstream.chunks('tailstream.events', 'created_at')
               WHERE tier IS NOT NULL AND range_start IS NOT NULL AND range_end IS NOT NULL";
    let spi = crate::error::spi;
    Spi::connect(|client| {
        let mut chunks = Vec::new();
        for row in client.select(sql, None, &[]).map_err(spi("looking for chunks"))? {
            let relation = row.get::<pg_sys::Oid>(1).map_err(spi("looking for chunks"))?;
            let tier = row.get::<i16>(2).map_err(spi("looking for chunks"))?;
            let start = row.get::<TimestampWithTimeZone>(3).map_err(spi("looking for chunks"))?;
            let end = row.get::<TimestampWithTimeZone>(4).map_err(spi("looking for chunks"))?;
            if let (Some(relation), Some(tier), Some(start), Some(end)) = (relation, tier, start, end) {
                chunks.push(Chunk { relation, tier, start: micros(start), end: micros(end) });
            }
        }
        Ok(chunks)
    })
}

fn run(
    chunk: pg_sys::Oid,
    values: [pg_sys::Datum; 5],
    position: &Position,
    gathered: &mut Gathered,
) -> Result<()> {
    Spi::connect_mut(|_| {
        let plan = plan(chunk)?;
        plan.each(values, |row| gathered.add(entry(&row, position)))
    })
}

fn plan(chunk: pg_sys::Oid) -> Result<RawPlan> {
    let number = chunk.to_u32();
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&number).copied()) {
        return Ok(plan);
    }
    let table = if chunk == pg_sys::InvalidOid { "tailstream.events".to_owned() } else { name_of(chunk)? };
    let columns = COLUMNS.map(|(name, _)| name).join(", ");
    let sql = format!("SELECT {columns} FROM {table} WHERE {CONDITION}");
    let plan = RawPlan::new(&sql, &[TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID])?;
    PLANS.with_borrow_mut(|plans| {
        if plans.len() >= MAX_PLANS {
            plans.drain().for_each(|(_, plan)| plan.free());
        }
        plans.insert(number, plan);
    });
    Ok(plan)
}

/// The qualified name of a relation.
fn name_of(relation: pg_sys::Oid) -> Result<String> {
    let name = Spi::get_one_with_args::<String>("SELECT $1::regclass::text", &[arg(relation)]);
    name.map_err(crate::error::spi("naming a chunk"))?.ok_or(Error::Internal("a chunk without name"))
}

fn entry(row: &RawRow<'_>, position: &Position) -> Entry {
    let event_id = row.int8(0).unwrap_or_default();
    let created_at = to_unix_time(row.int8(1).unwrap_or_default());
    let printed = |column: usize, output: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum| {
        let value = row.datum(column)?;
        // SAFETY: output functions take one value of their type and return a C string.
        let text = unsafe { pgrx::direct_function_call::<&CStr>(output, &[Some(value)]) };
        text.and_then(|text| text.to_str().ok())
    };
    let data = encode(&EventColumns {
        created_at,
        host: row.text(2),
        method: row.text(3),
        path: row.text(4),
        status: row.int4(5),
        response_time: row.int4(6),
        response_size: row.int8(7),
        user_agent: row.text(8),
        referrer: row.text(9),
        ip_address: printed(10, pg_sys::inet_out).and_then(Inet::parse),
        metadata: printed(11, pg_sys::jsonb_out),
    });
    Entry { ms: position.ms, seq: position.stream_seq + (event_id & 0xffff), event_id, data }
}
