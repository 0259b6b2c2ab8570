//! Batches of few events, read together before their turn.

use super::entry::Entry;
use super::events;
use crate::batch_reader::Position;
use crate::error::Result;

/// Batches of no more events are read together.
const SMALL: i32 = 100;

/// Positions whose events are read before their turn, where many have few: the entries of each, if they were found together.
pub struct ReadAhead<'a> {
    positions: &'a [Position],
    /// Those from this one on, in their order.
    first: usize,
    entries: std::vec::IntoIter<Option<Vec<Entry>>>,
    /// Bytes of an entry's JSON at the most.
    most: usize,
}

impl<'a> ReadAhead<'a> {
    pub fn new(positions: &'a [Position], most: usize) -> Self {
        Self { positions, first: 0, entries: Vec::new().into_iter(), most }
    }

    /// All entries of a position, if it is small and they were found; `room` is how many are wanted of it and of those behind it.
    pub fn take(&mut self, index: usize, room: usize) -> Result<Option<Vec<Entry>>> {
        let left = |ahead: &Self| ahead.first + ahead.entries.len();
        if index >= left(self) {
            let mut events = 0;
            let fits = |position: &&Position| {
                events += position.events as usize;
                position.events <= SMALL && events <= room
            };
            let together = self.positions[index..].iter().take_while(fits).count();
            let entries = match together {
                0 | 1 => vec![None],
                _ => events::read_together(&self.positions[index..index + together], self.most)?,
            };
            (self.first, self.entries) = (index, entries.into_iter());
        }
        while self.first < index {
            (self.first, _) = (self.first + 1, self.entries.next());
        }
        self.first += 1;
        Ok(self.entries.next().flatten())
    }
}
