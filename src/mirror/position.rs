//! Positions of events in commit order.

/// A position between two events, in commit order over all orgs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EventPosition {
    /// The sequence number of a batch.
    pub seq: i64,
    /// The number of events of that batch that come before this position.
    pub offset: i32,
}

impl EventPosition {
    /// The position before the first event of the batch with this sequence number.
    pub fn before(seq: i64) -> Self {
        Self { seq, offset: 0 }
    }
}

/// The position at which reading continues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadPosition {
    pub next: EventPosition,
    /// A lower bound for the `placed_at` of all batches from `next` on, in milliseconds since the Unix epoch; 0 if it
    /// is not known.
    pub placed_ms: i64,
    /// The org of the batch that `next` divides, if it divides one.
    pub inside: Option<String>,
}
