//! Lower bounds of the receive times of each transaction's batches.
//!
//! Before each poll the sequencer publishes a time and then reads the next transaction id. An ingest gets its id first,
//! then reads that time, and stamps its batch with that time or a later one. So a batch with that id or a later one was
//! received at that time or later, whatever the clock did in between. There is no bound for transactions from before the
//! first entry.

/// No bound is known.
const ALWAYS: i64 = i64::MIN;
/// Smallest distance between two bounds: microseconds.
const DISTANCE: i64 = 60_000_000;
/// With more bounds than this, every second one is removed.
const MOST: usize = 1_024;

/// Transaction ids, and the earliest receive time of batches from each id on: microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptBounds {
    /// In ascending order of both.
    bounds: Vec<(u64, i64)>,
}

impl ReceiptBounds {
    pub fn new() -> Self {
        Self { bounds: vec![(0, ALWAYS)] }
    }

    /// Adds a bound: ids from `next` on, which is not assigned yet, receive no batch before `time`.
    pub fn add(&mut self, next: u64, time: i64) {
        let (last, at) = self.bounds.last().copied().unwrap_or((0, ALWAYS));
        if next > last && time >= at.saturating_add(DISTANCE) {
            self.bounds.push((next, time));
        }
        if self.bounds.len() > MOST {
            let mut number = 0;
            self.bounds.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// The earliest time at which a transaction can have received batches.
    pub fn since(&self, xid: u64) -> i64 {
        let behind = self.bounds.partition_point(|(next, _)| *next <= xid);
        behind.checked_sub(1).map_or(ALWAYS, |last| self.bounds[last].1)
    }

    /// Removes bounds that are needed for smaller ids only.
    pub fn forget_before(&mut self, xid: u64) {
        let behind = self.bounds.partition_point(|(next, _)| *next <= xid);
        self.bounds.drain(..behind.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Transactions get ids while the clock moves in both directions, with polls in between.
        #[test]
        fn no_batch_is_older_than_its_transaction_s_bound(
            steps in prop::collection::vec((0_u8..3, -100_i64..200), 1..3_000),
        ) {
            let (mut clock, mut published, mut next_xid) = (0_i64, ALWAYS, 3_u64);
            let mut bounds = ReceiptBounds::new();
            let mut open: Vec<(u64, i64)> = Vec::new();
            for (step, seconds) in steps {
                clock += seconds * 1_000_000;
                match step {
                    0 => {
                        published = published.max(clock);
                        bounds.add(next_xid, published);
                        if let Some((oldest, _)) = open.first() {
                            bounds.forget_before(*oldest);
                        }
                    }
                    1 => {
                        open.push((next_xid, clock.max(published)));
                        next_xid += 1;
                    }
                    _ if open.len() > 3 => drop(open.remove(seconds.unsigned_abs() as usize % open.len())),
                    _ => {}
                }
                for (xid, received_at) in &open {
                    prop_assert!(bounds.since(*xid) <= *received_at);
                }
            }
        }
    }

    #[test]
    fn the_bound_follows_the_polls() {
        let mut bounds = ReceiptBounds::new();
        assert_eq!(bounds.since(7), ALWAYS);
        bounds.add(10, 1_000_000_000);
        bounds.add(11, 1_000_000_001);
        bounds.add(20, 2_000_000_000);
        assert_eq!(
            (bounds.since(9), bounds.since(10), bounds.since(19)),
            (ALWAYS, 1_000_000_000, 1_000_000_000)
        );
        assert_eq!(bounds.since(25), 2_000_000_000);
        bounds.forget_before(21);
        assert_eq!(bounds.bounds, [(20, 2_000_000_000)]);
    }

    #[test]
    fn bounds_do_not_accumulate() {
        let mut bounds = ReceiptBounds::new();
        for number in 1..100_000 {
            bounds.add(number, number as i64 * DISTANCE);
        }
        assert!(bounds.bounds.len() <= MOST);
        assert_eq!(bounds.since(0), ALWAYS);
    }
}
