//! The session's cache of chunks for the write path, and whether a chunk may be written directly.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::OIDOID;
use pgrx::prelude::*;

use crate::error::Result;
use crate::pg::streaming::StreamingStatement;
use crate::pg::time::to_unix_time;

/// Capacity. When the cache is full, all chunks are forgotten.
const MAX_CHUNKS: usize = 4_096;

/// A chunk of `tailstream.events` and its range of event times, start <= time < end, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WritableChunk {
    pub relation: pg_sys::Oid,
    start: i64,
    pub end: i64,
}

thread_local! {
    static CHUNKS: RefCell<HashMap<i16, Vec<WritableChunk>>> = RefCell::default();
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

/// Whether the catalog of this version of TimescaleDB is one that `is_plain` can read.
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

/// The cached chunk for an event time in a tier.
pub fn known(tier: i16, time: i64) -> Option<WritableChunk> {
    CHUNKS.with_borrow(|chunks| {
        let of_tier = chunks.get(&tier)?;
        of_tier.iter().rev().find(|chunk| chunk.start <= time && time < chunk.end).copied()
    })
}

/// Adds a chunk to the cache, unless it has no bounds, as a chunk of another layout.
pub fn learn(tier: i16, relation: pg_sys::Oid) -> Result<()> {
    let range = RANGE.with(|range| range.first_committed([relation.into()]))?;
    let Some([start, end]) = range else { return Ok(()) };
    let chunk = WritableChunk { relation, start: to_unix_time(start), end: to_unix_time(end) };
    CHUNKS.with_borrow_mut(|chunks| {
        if chunks.values().map(Vec::len).sum::<usize>() >= MAX_CHUNKS {
            chunks.clear();
        }
        chunks.entry(tier).or_default().push(chunk);
    });
    Ok(())
}

/// Whether the cache still has the chunk as `known` returned it.
pub fn is_known(chunk: &WritableChunk) -> bool {
    CHUNKS.with_borrow(|chunks| chunks.values().flatten().any(|known| known == chunk))
}

/// Relation cache callback: forgets the relation, or all chunks for `InvalidOid`. The range of a chunk changes when chunks are
/// split or merged.
pub fn relation_changed(relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid {
        CHUNKS.with_borrow_mut(HashMap::clear);
    } else {
        forget(relation);
    }
}

/// Forgets a chunk that does not exist or cannot be written directly.
pub fn forget(relation: pg_sys::Oid) {
    CHUNKS.with_borrow_mut(|chunks| {
        for of_tier in chunks.values_mut() {
            of_tier.retain(|chunk| chunk.relation != relation);
        }
    });
}

/// Whether the chunk is neither compressed nor frozen nor part of a continuous aggregate. The caller must hold a lock that
/// prevents these until the end of the transaction.
pub fn is_plain(relation: pg_sys::Oid) -> Result<bool> {
    let plain = PLAIN.with(|plain| plain.first_committed::<1, 1>([relation.into()]))?;
    Ok(plain.is_some())
}
