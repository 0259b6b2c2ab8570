//! The two write paths from a batch to its chunks.
//!
//! The executor path is an ordinary INSERT and works everywhere. The direct path writes rows into the heap and the indexes of
//! one chunk itself, where the result is the same. The first row for a chunk that the session does not know always takes the
//! executor path, which creates the chunk if necessary.

mod direct;
mod event_row;
mod executor;

use crate::error::Result;
use crate::event::Event;
use crate::settings::{self, IngestLane};
use crate::storage::block_hint::{BlockHint, BlockHintBuilder};
use crate::storage::{id, write_chunk_cache};

/// The org and the tier of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub org: &'a str,
    pub tier: i16,
}

/// The rows of a batch, ordered by event time. Their ids follow their order in the batch.
pub struct Rows<'a, 'e> {
    stored: &'a Stored<'a>,
    batch_id: i64,
    events: &'a [Event<'e>],
    /// Positions in `events`.
    order: Vec<u32>,
}

impl<'a, 'e> Rows<'a, 'e> {
    fn new(stored: &'a Stored<'a>, batch_id: i64, events: &'a [Event<'e>]) -> Self {
        let mut order: Vec<u32> = (0..events.len() as u32).collect();
        if !events.is_sorted_by_key(|event| event.created_at) {
            order.sort_by_key(|&position| events[position as usize].created_at);
        }
        Self { stored, batch_id, events, order }
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    /// Id and event of the row at `index`.
    fn get(&self, index: usize) -> (i64, &'a Event<'e>) {
        let position = self.order[index];
        (id::event_id(self.batch_id, position as i32), &self.events[position as usize])
    }
}

/// Writes the events of one batch. Returns where they were written if they are close together.
pub fn write(stored: &Stored, batch_id: i64, events: &[Event]) -> Result<Option<BlockHint>> {
    let rows = Rows::new(stored, batch_id, events);
    if settings::ingest_lane() == IngestLane::Executor || !write_chunk_cache::direct_possible() {
        executor::insert(&rows, 0..rows.len())?;
        return Ok(None);
    }
    let mut hints = BlockHintBuilder::None;
    let mut next = 0;
    while next < rows.len() {
        let time = rows.get(next).1.created_at;
        next = match write_chunk_cache::known(stored.tier, time) {
            Some(chunk) => {
                let end = next
                    + rows.order[next..].partition_point(|&at| events[at as usize].created_at < chunk.end);
                if !direct::insert(&rows, next..end, &chunk, &mut hints)? {
                    write_chunk_cache::forget(chunk.relation);
                    executor::insert(&rows, next..end)?;
                    hints = BlockHintBuilder::Scattered;
                }
                end
            }
            None => {
                // The session knows no chunk for this row. The executor finds or creates it.
                let (relation, block) = executor::insert_one(&rows, next)?;
                write_chunk_cache::learn(stored.tier, relation)?;
                hints.add(relation.to_u32(), block);
                if write_chunk_cache::known(stored.tier, time).is_none() {
                    // Not a chunk that can be cached. Inserting the rest row by row would take too long.
                    executor::insert(&rows, next + 1..rows.len())?;
                    hints = BlockHintBuilder::Scattered;
                    break;
                }
                next + 1
            }
        };
    }
    direct::make_visible();
    Ok(hints.hint(rows.len()))
}
