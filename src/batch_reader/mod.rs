//! A stored batch, read back by its position in the sequencer's order.
//!
//! The batch's tier and event times tell the chunks, so each is asked by itself with a plan of its own: a query of
//! the hypertable would be planned over all chunks, or executed over all. If that does not bring all events (they
//! were copied into another tier, or are gone) the hypertable is asked.

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

/// Columns of `position_columns!()`.
pub const POSITION_COLUMNS: usize = 9;

/// What is read of table `p`, tailstream.positions, for `Position::of`.
macro_rules! position_columns {
    () => {
        "p.seq, (extract(epoch FROM p.placed_at) * 1000)::bigint, p.stream_seq, p.batch_id, p.tier, p.event_count,
         p.first_event_at, p.last_event_at, p.block_hint"
    };
}
pub(crate) use position_columns;

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

/// Takes events as they are found. What was taken before may turn out to be incomplete: then it comes again.
pub trait Sink {
    /// Takes a row of `storage::events::COLUMNS`; returns whether more may come.
    fn take(&mut self, row: &SlotRow<'_>) -> bool;

    /// Forgets what was taken.
    fn clear(&mut self);
}

thread_local! {
    /// By chunk; the hypertable has no number.
    static PLANS: PlanCache<u32> = PlanCache::default();
}

/// A search for the events of one batch.
struct Search<'a> {
    org: &'a str,
    ids: Range<i64>,
    sink: &'a mut dyn Sink,
    /// Which of them were found, a bit for each.
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

    /// Passes an event on that was not found before.
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

    /// Asks the chunks that are still there, and the hypertable if they have not got all.
    fn ask_chunks(&mut self, chunks: &[ListedChunk], first: i64, last: i64) -> Result<()> {
        for chunk in chunks {
            if self.is_over() {
                return Ok(());
            }
            if read_chunk_cache::is_there(chunk) {
                self.ask(chunk.relation, first.max(chunk.start), last.min(chunk.end - 1))?;
            }
        }
        // They may have been copied into another chunk while this waited for the old one: then neither that nor the copies
        // are in the snapshot that was taken before. And the hypertable's chunks may have to be waited for in the same way.
        // After the first attempt all of them are locked, and a snapshot taken then shows every event that is there at all.
        for _ in 0..2 {
            if self.is_over() {
                break;
            }
            self.again();
            snapshot::latest(|| self.ask(pg_sys::InvalidOid, first, last))?;
        }
        Ok(())
    }

    /// Asks one chunk, or the hypertable.
    fn ask(&mut self, chunk: pg_sys::Oid, first: i64, last: i64) -> Result<()> {
        let org = self.org.into_datum().ok_or(Error::Internal("an org without id"))?;
        let values = [org, first.into(), last.into(), self.ids.start.into(), self.ids.end.into()].map(Some);
        Spi::connect_mut(|_| {
            let plan = plan(chunk)?;
            plan.each(values, Visibility::ActiveSnapshot, |row| self.take(&row))
        })
    }
}

/// Gives the sink the events of a batch whose offsets are in the range, each once, in any order; those that are gone are left out.
/// In a transaction with an active snapshot.
pub fn read(org: &str, position: &Position, offsets: Range<i32>, sink: &mut dyn Sink) -> Result<()> {
    let first_id = id::event_id(position.batch_id, 0);
    let ids = first_id + i64::from(offsets.start)..first_id + i64::from(offsets.end);
    let mut search = Search::new(org, ids, sink);
    let (first, last) = (micros(position.first), micros(position.last));
    let chunks =
        subtransaction::again_without_dropped_chunks(|| read_chunk_cache::of(position.tier, first, last))?;
    // Any other relation may have got that number since the hint was written down.
    let is_known =
        |block_hint: &&BlockHint| chunks.iter().any(|chunk| chunk.relation.to_u32() == block_hint.chunk);
    if let Some(block_hint) = position.block_hint.as_ref().filter(is_known) {
        // Some of a large batch are near where they should be, if it was written in its order.
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
        search.ask_chunks(&chunks, first, last)
    })
}

fn plan(chunk: pg_sys::Oid) -> Result<StreamingPlan> {
    let make = |_: &u32| {
        let table =
            if chunk == pg_sys::InvalidOid { "tailstream.events".to_owned() } else { name_of(chunk)? };
        // All columns in their order: the executor then passes rows on without a projection.
        let sql = format!("SELECT {} FROM {table} WHERE {CONDITION}", EVENTS.column_names());
        // A plan of the hypertable for any times opens all its chunks.
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
