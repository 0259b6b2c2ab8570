//! The lanes by which rows reach their chunks.
//!
//! The executor lane is an ordinary INSERT and right everywhere. The direct lane writes rows of one
//! chunk to its heap and indexes itself, wherever that comes to the same. The first row for a chunk
//! that this session does not know goes through the executor, which makes the chunk if need be.

pub mod chunk;
mod direct;
mod executor;
pub mod spot;

use crate::error::Result;
use crate::event::Event;
use crate::settings::{self, IngestLane};
use spot::{Spot, Spots};

/// Whose rows they are and where they go.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub org: &'a str,
    pub tier: i16,
}

/// Rows in the order of their event time, with the ids that their place in the batch gives them.
pub struct Rows<'a, 'e> {
    stored: &'a Stored<'a>,
    first_id: i64,
    events: &'a [Event<'e>],
    /// Positions in `events`.
    order: Vec<u32>,
}

impl<'a, 'e> Rows<'a, 'e> {
    fn new(stored: &'a Stored<'a>, first_id: i64, events: &'a [Event<'e>]) -> Self {
        let mut order: Vec<u32> = (0..events.len() as u32).collect();
        if !events.is_sorted_by_key(|event| event.created_at) {
            order.sort_by_key(|&position| events[position as usize].created_at);
        }
        Self { stored, first_id, events, order }
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    /// Id and event of the row at `index`.
    fn get(&self, index: usize) -> (i64, &'a Event<'e>) {
        let position = self.order[index];
        (self.first_id + i64::from(position), &self.events[position as usize])
    }
}

/// Writes the events of one batch; `first_id` is the id of the first. Returns where they went, if that is one place.
pub fn write(stored: &Stored, first_id: i64, events: &[Event]) -> Result<Option<Spot>> {
    let rows = Rows::new(stored, first_id, events);
    if settings::ingest_lane() == IngestLane::Executor || !chunk::direct_possible() {
        executor::insert(&rows, 0..rows.len())?;
        return Ok(None);
    }
    let mut spots = Spots::None;
    let mut next = 0;
    while next < rows.len() {
        let time = rows.get(next).1.created_at;
        next = match chunk::known(stored.tier, time) {
            Some(chunk) => {
                let end = next
                    + rows.order[next..].partition_point(|&at| events[at as usize].created_at < chunk.end);
                if !direct::insert(&rows, next..end, &chunk, &mut spots)? {
                    chunk::forget(chunk.relation);
                    executor::insert(&rows, next..end)?;
                    spots = Spots::Scattered;
                }
                end
            }
            None => {
                // Nobody has told this session of a chunk for this row: the executor finds or makes it.
                let (relation, block) = executor::insert_one(&rows, next)?;
                chunk::learn(stored.tier, relation)?;
                spots.add(relation.to_u32(), block);
                if chunk::known(stored.tier, time).is_none() {
                    // There was nothing to learn; row by row would take for ever.
                    executor::insert(&rows, next + 1..rows.len())?;
                    spots = Spots::Scattered;
                    break;
                }
                next + 1
            }
        };
    }
    // Later statements of this transaction see what was written.
    direct::make_visible();
    Ok(spots.hint(rows.len()))
}
