//! Reads the events of several small batches together.

use super::entry::Entry;
use super::events;
use crate::batch_reader::Position;
use crate::error::Result;

/// Batches with more events than this are read one by one.
const SMALL: i32 = 100;

/// Positions of batches, and the entries of those that were read ahead. An element is `None` if its batch has to be
/// read separately.
pub struct ReadAhead<'a> {
    positions: &'a [Position],
    /// The index of the position that the first element of `entries` belongs to.
    first: usize,
    entries: std::vec::IntoIter<Option<Vec<Entry>>>,
    /// The largest permitted length of an entry's JSON in bytes.
    most: usize,
}

impl<'a> ReadAhead<'a> {
    pub fn new(positions: &'a [Position], most: usize) -> Self {
        Self { positions, first: 0, entries: Vec::new().into_iter(), most }
    }

    /// Returns all entries of the position at `index` if its batch is small and was read ahead. Indexes must ascend.
    /// `room` is the number of events that the caller can use, from this position on.
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
