//! Where in the heap the rows of a batch went.
//!
//! The mirror reads a batch back moments later. By its index that costs as much as the org has events in the batch's
//! range of time, which many producers share; by its blocks it costs what the batch has. It is a hint: whoever
//! follows it looks whether all events are there, and else asks the index.

use pgrx::pg_sys;

/// Rows to a block that a hint must come to at the least; with fewer it would lead through too much of others.
const MIN_ROWS: i64 = 2;
/// Blocks that are always few enough.
const FEW_BLOCKS: i64 = 8;

/// Blocks of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    pub chunk: pg_sys::Oid,
    pub first: i32,
    pub last: i32,
}

impl Spot {
    /// One block. `None` where its number is too large to be written down.
    pub fn at(chunk: pg_sys::Oid, block: u32) -> Option<Self> {
        let block = i32::try_from(block).ok()?;
        Some(Self { chunk, first: block, last: block })
    }

    /// Both, if they are in one chunk.
    pub fn with(self, other: Self) -> Option<Self> {
        (self.chunk == other.chunk).then(|| Self {
            chunk: self.chunk,
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        })
    }

    /// Whether it is worth following for so many rows.
    pub fn is_close(&self, rows: usize) -> bool {
        let blocks = i64::from(self.last) - i64::from(self.first) + 1;
        blocks <= FEW_BLOCKS + rows as i64 / MIN_ROWS
    }
}

/// The spot of all rows of a batch, as it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spots {
    /// No row yet.
    None,
    One(Spot),
    /// In several chunks, or not known.
    Scattered,
}

impl Spots {
    pub fn add(&mut self, spot: Option<Spot>) {
        *self = match (*self, spot) {
            (Self::None, Some(spot)) => Self::One(spot),
            (Self::One(known), Some(spot)) => known.with(spot).map_or(Self::Scattered, Self::One),
            _ => Self::Scattered,
        };
    }

    /// The one spot of so many rows, if it is worth following.
    pub fn hint(self, rows: usize) -> Option<Spot> {
        match self {
            Self::One(spot) if spot.is_close(rows) => Some(spot),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_one_narrow_place() {
        let at = |chunk: u32, block| Spot::at(pg_sys::Oid::from(chunk), block);
        let mut spots = Spots::None;
        assert_eq!(spots.hint(1), None);
        spots.add(at(1, 7));
        spots.add(at(1, 5));
        assert_eq!(spots.hint(2), Some(Spot { chunk: pg_sys::Oid::from(1), first: 5, last: 7 }));
        spots.add(at(1, 500));
        assert_eq!(spots.hint(3), None, "too wide");
        assert!(spots.hint(1_000).is_some());
        spots.add(at(2, 6));
        assert_eq!(spots.hint(1_000), None, "two chunks");
        assert_eq!(Spot::at(pg_sys::Oid::from(1), u32::MAX), None);
    }
}
