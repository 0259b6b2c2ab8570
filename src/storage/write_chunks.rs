//! What this session knows of the chunks that rows go to, and whether one may be written directly.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::OIDOID;
use pgrx::prelude::*;

use crate::error::Result;
use crate::pg::streaming::StreamingStatement;
use crate::pg::time::to_unix_time;

/// Chunks remembered per session; beyond it all are forgotten and learnt again.
const MAX_CHUNKS: usize = 4_096;

/// A chunk of tailstream.events and the event times it takes: start <= time < end, Unix microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub relation: pg_sys::Oid,
    start: i64,
    pub end: i64,
}

thread_local! {
    static CHUNKS: RefCell<HashMap<i16, Vec<Chunk>>> = RefCell::default();
    static POSSIBLE: Cell<Option<bool>> = const { Cell::new(None) };
    static RANGE: StreamingStatement = const { StreamingStatement::new(
        "SELECT r.range_start, r.range_end FROM tailstream.chunk_range($1, 'created_at') r
          WHERE r.range_start IS NOT NULL AND r.range_end IS NOT NULL",
        &[OIDOID],
    ) };
    static PLAIN: StreamingStatement = const { StreamingStatement::new(
        "SELECT 1::pg_catalog.int8 FROM _timescaledb_catalog.chunk c
          WHERE c.id OPERATOR(pg_catalog.=) _timescaledb_functions.chunk_id_from_relid($1)
            AND c.status OPERATOR(pg_catalog.=) 0
            AND NOT EXISTS (SELECT FROM _timescaledb_catalog.continuous_agg a
                            WHERE a.raw_hypertable_id OPERATOR(pg_catalog.=) c.hypertable_id)",
        &[OIDOID],
    ) };
}

/// Whether this TimescaleDB lets us look at the state of its chunks the way `is_plain` does.
pub fn direct_possible() -> bool {
    if let Some(possible) = POSSIBLE.get() {
        return possible;
    }
    let found = Spi::get_one::<bool>(
        "SELECT pg_catalog.to_regprocedure('_timescaledb_functions.chunk_id_from_relid(oid)') IS NOT NULL
            AND 4 OPERATOR(pg_catalog.=) (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute
                 WHERE (attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('_timescaledb_catalog.chunk')
                            AND attname OPERATOR(pg_catalog.=) ANY ('{id,hypertable_id,status}'))
                    OR (attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('_timescaledb_catalog.continuous_agg')
                            AND attname OPERATOR(pg_catalog.=) 'raw_hypertable_id'))",
    );
    let possible = matches!(found, Ok(Some(true)));
    POSSIBLE.set(Some(possible));
    possible
}

/// The chunk for an event time in a tier, if this session has met it.
pub fn known(tier: i16, time: i64) -> Option<Chunk> {
    CHUNKS.with_borrow(|chunks| {
        let of_tier = chunks.get(&tier)?;
        of_tier.iter().rev().find(|chunk| chunk.start <= time && time < chunk.end).copied()
    })
}

/// Remembers a chunk, unless it has no bounds: then it is none that we made.
pub fn learn(tier: i16, relation: pg_sys::Oid) -> Result<()> {
    let range = RANGE.with(|range| range.first_committed([relation.into()]))?;
    let Some([start, end]) = range else { return Ok(()) };
    let chunk = Chunk { relation, start: to_unix_time(start), end: to_unix_time(end) };
    CHUNKS.with_borrow_mut(|chunks| {
        if chunks.values().map(Vec::len).sum::<usize>() >= MAX_CHUNKS {
            chunks.clear();
        }
        chunks.entry(tier).or_default().push(chunk);
    });
    Ok(())
}

/// Whether the session still knows the chunk as it was when `known` returned it.
pub fn is_known(chunk: &Chunk) -> bool {
    CHUNKS.with_borrow(|chunks| chunks.values().flatten().any(|known| known == chunk))
}

/// Forgets a relation whose definition changed, be it a chunk or not; all of them for `InvalidOid`.
/// Ranges change where chunks are split or merged.
pub fn relation_changed(relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid {
        CHUNKS.with_borrow_mut(HashMap::clear);
    } else {
        forget(relation);
    }
}

/// Forgets a chunk that is gone or cannot be written directly.
pub fn forget(relation: pg_sys::Oid) {
    CHUNKS.with_borrow_mut(|chunks| {
        for of_tier in chunks.values_mut() {
            of_tier.retain(|chunk| chunk.relation != relation);
        }
    });
}

/// Whether the chunk is neither compressed nor frozen nor watched by a continuous aggregate. Ask only
/// while holding a lock that keeps all of that out until the end of the transaction.
pub fn is_plain(relation: pg_sys::Oid) -> Result<bool> {
    let plain = PLAIN.with(|plain| plain.first_committed::<1, 1>([relation.into()]))?;
    Ok(plain.is_some())
}
