//! Reads the events of a stored batch, given its position.
//!
//! The batch's tier and event times determine its chunks, so each chunk is queried with a plan of its own: a query of the
//! hypertable would be planned, or executed, over all chunks. Only if events are missing (they were copied into another tier,
//! or no longer exist) is the hypertable queried.

pub mod heap;
pub mod order;
pub mod together;

use std::ops::Range;

use pgrx::PgBuiltInOids;
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::{INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;
use pgrx::spi::Spi;

use crate::error::{Error, Result};
use crate::pg::statement::arg;
use crate::pg::streaming::{PlanCache, PlanCacheMode, SlotRow, StreamingPlan, Visibility};
use crate::pg::time::micros;
use crate::pg::{snapshot, subtransaction};
use crate::storage::block_hint::BlockHint;
use crate::storage::events::EVENTS;
use crate::storage::id;
use crate::storage::read_chunk_cache::{self, ListedChunk};

const CONDITION: &str = "org_id = $1 AND created_at >= $2 AND created_at <= $3 AND id >= $4 AND id < $5";
const ARGUMENTS: [PgBuiltInOids; 5] = [TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID];

/// Number of columns of `position_columns!()`.
pub const POSITION_COLUMNS: usize = 9;

/// The columns of table `p`, tailstream.positions, that `Position::of` reads.
macro_rules! position_columns {
    () => {
        "p.seq, (extract(epoch FROM p.placed_at) * 1000)::bigint, p.stream_seq, p.batch_id, p.tier, p.event_count,
         p.first_event_at, p.last_event_at, p.block_hint"
    };
}
pub(crate) use position_columns;

/// The position of a batch, and what is known of the batch.
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
    /// Where in the heap the events probably are.
    pub block_hint: Option<BlockHint>,
}

impl Position {
    /// From a row that begins with `position_columns!()`.
    pub fn of(row: &SlotRow<'_>) -> Result<Self> {
        let missing = || Error::Internal("a NULL in a position");
        let number = |column| row.int8(column).ok_or_else(missing);
        let small = |column| row.int4(column).ok_or_else(missing);
        let time = |column| {
            let time = TimestampWithTimeZone::try_from(number(column)?);
            time.map_err(|_| Error::Internal("a time out of range"))
        };
        Ok(Self {
            seq: number(0)?,
            ms: number(1)?,
            stream_seq: number(2)?,
            batch_id: number(3)?,
            tier: small(4)? as i16,
            events: small(5)?,
            first: time(6)?,
            last: time(7)?,
            block_hint: row.text(8).and_then(|text| text.parse().ok()),
        })
    }
}

/// Receives events in the order in which they are found. A search may start over; then it calls `clear` and passes all again.
pub trait Sink {
    /// Receives a row with the columns of `storage::events::COLUMNS`. Returns whether it wants more.
    fn take(&mut self, row: &SlotRow<'_>) -> bool;

    /// Discards the events received so far.
    fn clear(&mut self);
}

thread_local! {
    /// By chunk; the hypertable has oid 0.
    static PLANS: PlanCache<u32> = PlanCache::default();
}

/// A search for the events of one batch.
struct Search<'a> {
    org: &'a str,
    ids: Range<i64>,
    sink: &'a mut dyn Sink,
    /// A bit for each event that was found.
    found: Vec<u64>,
    missing: usize,
    /// The sink wants no more.
    stopped: bool,
}

impl<'a> Search<'a> {
    fn new(org: &'a str, ids: Range<i64>, sink: &'a mut dyn Sink) -> Self {
        let missing = (ids.end - ids.start).max(0) as usize;
        Self { org, ids, sink, found: vec![0; missing.div_ceil(64)], missing, stopped: false }
    }

    /// Passes an event on, unless it was found before.
    fn take(&mut self, row: &SlotRow<'_>) -> bool {
        if let Some(id) = row.int8(0).filter(|id| self.ids.contains(id)) {
            let offset = (id - self.ids.start) as usize;
            let (word, bit) = (&mut self.found[offset / 64], 1 << (offset % 64));
            if *word & bit == 0 {
                *word |= bit;
                self.missing -= 1;
                self.stopped = !self.sink.take(row);
            }
        }
        !self.is_over()
    }

    fn is_over(&self) -> bool {
        self.stopped || self.missing == 0
    }

    fn again(&mut self) {
        self.sink.clear();
        self.found.fill(0);
        self.missing = (self.ids.end - self.ids.start).max(0) as usize;
    }

    /// Queries the chunks that still exist, and the hypertable if events are missing then.
    fn query_chunks(&mut self, chunks: &[ListedChunk], first: i64, last: i64) -> Result<()> {
        for chunk in chunks {
            if self.is_over() {
                return Ok(());
            }
            if read_chunk_cache::is_there(chunk) {
                self.query(chunk.relation, first.max(chunk.start), last.min(chunk.end - 1))?;
            }
        }
        // A rescue may have copied the events into another chunk while this waited for the old one: then the earlier snapshot
        // shows neither the old rows nor the copies. The query of the hypertable may wait for chunks in the same way. After the
        // first attempt all chunks are locked, and a snapshot taken then shows every event that exists.
        for _ in 0..2 {
            if self.is_over() {
                break;
            }
            self.again();
            snapshot::latest(|| self.query(pg_sys::InvalidOid, first, last))?;
        }
        Ok(())
    }

    /// Queries one chunk, or the hypertable.
    fn query(&mut self, chunk: pg_sys::Oid, first: i64, last: i64) -> Result<()> {
        let org = self.org.into_datum().ok_or(Error::Internal("an org without id"))?;
        let values = [org, first.into(), last.into(), self.ids.start.into(), self.ids.end.into()].map(Some);
        Spi::connect_mut(|_| {
            let plan = plan(chunk)?;
            plan.each(values, Visibility::ActiveSnapshot, |row| self.take(&row))
        })
    }
}

/// Passes the events of a batch with these offsets to the sink, each once and in any order. Missing events are left out. Needs an
/// active snapshot.
pub fn read(org: &str, position: &Position, offsets: Range<i32>, sink: &mut dyn Sink) -> Result<()> {
    let first_id = id::event_id(position.batch_id, 0);
    let ids = first_id + i64::from(offsets.start)..first_id + i64::from(offsets.end);
    let mut search = Search::new(org, ids, sink);
    let (first, last) = (micros(position.first), micros(position.last));
    let chunks =
        subtransaction::again_without_dropped_chunks(|| read_chunk_cache::of(position.tier, first, last))?;
    // The oid may belong to another relation by now.
    let is_known =
        |block_hint: &&BlockHint| chunks.iter().any(|chunk| chunk.relation.to_u32() == block_hint.chunk);
    if let Some(block_hint) = position.block_hint.as_ref().filter(is_known) {
        // If a large batch was written in its order, a part of it is in the corresponding part of the blocks.
        let rows = offsets.start.unsigned_abs()..offsets.end.unsigned_abs();
        let part = block_hint.part(rows, position.events.unsigned_abs());
        for block_hint in part.iter().chain([block_hint]) {
            heap::scan(block_hint, |row| search.take(row));
            if search.is_over() {
                return Ok(());
            }
        }
    }
    subtransaction::again_without_dropped_chunks(|| {
        search.again();
        search.query_chunks(&chunks, first, last)
    })
}

fn plan(chunk: pg_sys::Oid) -> Result<StreamingPlan> {
    let make = |_: &u32| {
        let table =
            if chunk == pg_sys::InvalidOid { "tailstream.events".to_owned() } else { name_of(chunk)? };
        // All columns in their order: the executor then passes rows on without a projection.
        let sql = format!("SELECT {} FROM {table} WHERE {CONDITION}", EVENTS.column_names());
        // A generic plan of the hypertable opens all its chunks.
        let planning = if chunk == pg_sys::InvalidOid { PlanCacheMode::Custom } else { PlanCacheMode::Auto };
        StreamingPlan::new(&sql, &ARGUMENTS, planning)
    };
    PLANS.with(|plans| plans.get(&chunk.to_u32(), make))
}

/// The qualified name of a relation.
fn name_of(relation: pg_sys::Oid) -> Result<String> {
    let name = Spi::get_one_with_args::<String>("SELECT $1::regclass::text", &[arg(relation)]);
    name.map_err(crate::error::spi("naming a chunk"))?.ok_or(Error::Internal("a chunk without name"))
}
