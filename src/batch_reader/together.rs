//! Reads many small batches together: batches with neighbouring positions are neighbours in the heap, so a block with events of
//! many batches is read once.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{Position, heap};
use crate::error::Result;
use crate::pg::streaming::SlotRow;
use crate::pg::subtransaction;
use crate::pg::time::micros;
use crate::storage::block_hint::BlockHint;
use crate::storage::{id, read_chunk_cache};

/// One of the batches that are read.
struct BatchSearch {
    index: usize,
    events: i32,
    /// A bit for each event that was found.
    found: Vec<u64>,
    missing: usize,
}

/// Reads batches through their block hints. Calls `take` with the index of a batch and one of its rows, each row once and in any
/// order, until it breaks. Returns for each batch whether all events were found; the others must be read with `read`.
pub fn read(
    positions: &[Position],
    mut take: impl FnMut(usize, &SlotRow<'_>) -> ControlFlow<()>,
) -> Result<Vec<bool>> {
    let mut complete = vec![false; positions.len()];
    let mut by_batch = HashMap::new();
    for block_hint in hints(positions, &mut by_batch)? {
        let mut stopped = false;
        heap::scan(&block_hint, |row| {
            let event_id = row.int8(0).unwrap_or_default();
            if let Some(sought) = by_batch.get_mut(&id::batch_of(event_id))
                && sought.finds(id::offset_of(event_id))
            {
                stopped = take(sought.index, row).is_break();
            }
            !stopped
        });
        if stopped {
            return Ok(vec![false; positions.len()]);
        }
    }
    for sought in by_batch.values() {
        complete[sought.index] = sought.missing == 0;
    }
    Ok(complete)
}

impl BatchSearch {
    fn new(index: usize, events: i32) -> Self {
        let missing = events.max(0) as usize;
        Self { index, events, found: vec![0; missing.div_ceil(64)], missing }
    }

    /// Marks an event as found. Returns false if it was found before.
    fn finds(&mut self, offset: i32) -> bool {
        if offset >= self.events {
            return false;
        }
        let (word, bit) = (&mut self.found[offset as usize / 64], 1 << (offset % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        self.missing -= usize::from(is_new);
        is_new
    }
}

/// The blocks of these batches by chunk, each once, and the batches by their ids. Ignores hints whose oid is not one of our
/// chunks: it may belong to another relation by now.
fn hints(positions: &[Position], by_batch: &mut HashMap<i64, BatchSearch>) -> Result<Vec<BlockHint>> {
    let mut by_chunk: HashMap<u32, Vec<(u32, u32)>> = HashMap::new();
    for (index, position) in positions.iter().enumerate() {
        let (first, last) = (micros(position.first), micros(position.last));
        let Some(block_hint) = &position.block_hint else { continue };
        let is_known = match read_chunk_cache::known(position.tier, first, last, block_hint.chunk) {
            true => true,
            false => {
                let chunks = subtransaction::again_without_dropped_chunks(|| {
                    read_chunk_cache::of(position.tier, first, last)
                })?;
                chunks.iter().any(|chunk| chunk.relation.to_u32() == block_hint.chunk)
            }
        };
        if is_known {
            by_batch.insert(position.batch_id, BatchSearch::new(index, position.events));
            by_chunk.entry(block_hint.chunk).or_default().extend(&block_hint.runs);
        }
    }
    let block_hint = |(chunk, mut runs): (u32, Vec<(u32, u32)>)| {
        runs.sort_unstable();
        runs.dedup_by(|next, run| {
            let touches = next.0 <= run.1.saturating_add(1);
            if touches {
                run.1 = run.1.max(next.1);
            }
            touches
        });
        BlockHint { chunk, runs }
    };
    Ok(by_chunk.into_iter().map(block_hint).collect())
}
