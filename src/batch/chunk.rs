//! The chunks of events that this session knows.

use std::cell::RefCell;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::Spi;

use super::micros;
use crate::error::{Result, spi};
use crate::statement::snapshot;

const LOOKING: &str = "looking for chunks";

/// A chunk of events and the time range it takes, in PostgreSQL's microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    pub relation: pg_sys::Oid,
    tier: i16,
    pub start: i64,
    pub end: i64,
}

thread_local! {
    static CHUNKS: RefCell<Vec<Chunk>> = const { RefCell::new(Vec::new()) };
}

/// The known chunks of a tier in this range of time; looks for new ones if the first or the last event has none.
pub fn of(tier: i16, first: i64, last: i64) -> Result<Vec<Chunk>> {
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
    let chunks = all()?;
    CHUNKS.set(chunks);
    Ok(find())
}

/// Whether a chunk is still there; it then stays until the end of the transaction, and else is forgotten.
pub fn is_there(chunk: &Chunk) -> bool {
    // SAFETY: takes a lock as any SELECT does, and keeps it.
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

fn all() -> Result<Vec<Chunk>> {
    let sql = "SELECT chunk::oid, tier, range_start, range_end FROM tailstream.chunks('tailstream.events', 'created_at')
               WHERE tier IS NOT NULL AND range_start IS NOT NULL AND range_end IS NOT NULL";
    // Its constraints are looked up as they are now, so the chunk must be one that is there now.
    snapshot::latest(|| {
        Spi::connect(|client| {
            let mut chunks = Vec::new();
            for row in client.select(sql, None, &[]).map_err(spi(LOOKING))? {
                let relation = row.get::<pg_sys::Oid>(1).map_err(spi(LOOKING))?;
                let tier = row.get::<i16>(2).map_err(spi(LOOKING))?;
                let start = row.get::<TimestampWithTimeZone>(3).map_err(spi(LOOKING))?;
                let end = row.get::<TimestampWithTimeZone>(4).map_err(spi(LOOKING))?;
                if let (Some(relation), Some(tier), Some(start), Some(end)) = (relation, tier, start, end) {
                    chunks.push(Chunk { relation, tier, start: micros(start), end: micros(end) });
                }
            }
            Ok(chunks)
        })
    })
}
