//! The session's list of all chunks of events, for readers.
//!
//! The list may be stale: a reader falls back to the hypertable if a chunk is missing. The cache of the write path
//! (`write_chunk_cache`) must be exact instead, so it forgets a chunk at every invalidation, which happens to a busy chunk at each
//! autovacuum and ANALYZE. A common cache would have to list all chunks again each time.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::Spi;

use super::events::EVENTS;
use crate::error::{Result, spi};
use crate::pg::snapshot;
use crate::pg::time::micros;

const LOOKING: &str = "looking for chunks";

/// A chunk of events and the time range it takes, in PostgreSQL's microseconds.
#[derive(Debug, Clone, Copy)]
pub struct ListedChunk {
    pub relation: pg_sys::Oid,
    tier: i16,
    pub start: i64,
    pub end: i64,
}

thread_local! {
    /// Ordered by tier and time.
    static CHUNKS: RefCell<Vec<ListedChunk>> = const { RefCell::new(Vec::new()) };
    /// The oid of the events table when the chunks were listed; `InvalidOid` if the table has changed since.
    static LISTED: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
}

/// The known chunks of a tier in this time range, ends included. Lists the chunks again if the first or the last time is in
/// none and the table has changed.
pub fn of(tier: i16, first: i64, last: i64) -> Result<Vec<ListedChunk>> {
    let covers =
        |found: &[ListedChunk], time: i64| found.iter().any(|chunk| chunk.start <= time && time < chunk.end);
    let found = find(tier, first, last);
    if covers(&found, first) && covers(&found, last) || LISTED.get() != pg_sys::InvalidOid {
        return Ok(found);
    }
    // Set first, so that an invalidation that arrives while the chunks are listed is not lost.
    LISTED.set(EVENTS.relation()?);
    let listed = all();
    if listed.is_err() {
        LISTED.set(pg_sys::InvalidOid);
    }
    let mut chunks = listed?;
    chunks.sort_unstable_by_key(|chunk| (chunk.tier, chunk.start));
    CHUNKS.set(chunks);
    Ok(find(tier, first, last))
}

fn find(tier: i16, first: i64, last: i64) -> Vec<ListedChunk> {
    CHUNKS.with_borrow(|chunks| {
        let behind = chunks.partition_point(|chunk| (chunk.tier, chunk.start) <= (tier, last));
        let touches = |chunk: &&ListedChunk| chunk.tier == tier && first < chunk.end;
        let mut found: Vec<ListedChunk> =
            chunks[..behind].iter().rev().take_while(touches).copied().collect();
        found.reverse();
        found
    })
}

/// Whether a relation is known as a chunk of this tier for these times.
pub fn known(tier: i16, first: i64, last: i64, relation: u32) -> bool {
    CHUNKS.with_borrow(|chunks| {
        let behind = chunks.partition_point(|chunk| (chunk.tier, chunk.start) <= (tier, last));
        let touches = |chunk: &&ListedChunk| chunk.tier == tier && first < chunk.end;
        chunks[..behind].iter().rev().take_while(touches).any(|chunk| chunk.relation.to_u32() == relation)
    })
}

/// Relation cache callback. The events table is invalidated when a chunk is created or dropped.
pub fn relation_changed(relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid || relation == LISTED.get() {
        LISTED.set(pg_sys::InvalidOid);
    }
}

/// Whether a chunk still exists. If so, it is locked and stays until the end of the transaction; if not, it is forgotten.
pub fn is_there(chunk: &ListedChunk) -> bool {
    // SAFETY: acquires a lock as any SELECT does, and keeps it.
    let there = unsafe {
        let opened = pg_sys::try_relation_open(chunk.relation, pg_sys::AccessShareLock as i32);
        if !opened.is_null() {
            pg_sys::relation_close(opened, pg_sys::NoLock as i32);
        }
        !opened.is_null()
    };
    if !there {
        CHUNKS.with_borrow_mut(|chunks| chunks.retain(|other| other.relation != chunk.relation));
    }
    there
}

fn all() -> Result<Vec<ListedChunk>> {
    let sql = "SELECT chunk::oid, tier, range_start, range_end FROM tailstream.chunks('tailstream.events', 'created_at')
               WHERE tier IS NOT NULL AND range_start IS NOT NULL AND range_end IS NOT NULL";
    // The constraints of a chunk are read with the newest snapshot, so the list of chunks must be, too.
    snapshot::latest(|| {
        Spi::connect(|client| {
            let mut chunks = Vec::new();
            for row in client.select(sql, None, &[]).map_err(spi(LOOKING))? {
                let relation = row.get::<pg_sys::Oid>(1).map_err(spi(LOOKING))?;
                let tier = row.get::<i16>(2).map_err(spi(LOOKING))?;
                let start = row.get::<TimestampWithTimeZone>(3).map_err(spi(LOOKING))?;
                let end = row.get::<TimestampWithTimeZone>(4).map_err(spi(LOOKING))?;
                if let (Some(relation), Some(tier), Some(start), Some(end)) = (relation, tier, start, end) {
                    chunks.push(ListedChunk { relation, tier, start: micros(start), end: micros(end) });
                }
            }
            Ok(chunks)
        })
    })
}
