//! Since when the batches of a transaction can have been received.
//!
//! Before each look the sequencer publishes a time and then asks which transaction id comes next. An ingest gets its id
//! first and reads that time then, and stamps its batch with no earlier one. So a batch of that id or a later one was
//! received at that time or later, whatever the clock did meanwhile. Of transactions from before the first mark nothing
//! is known.

/// Nothing is known.
const ALWAYS: i64 = i64::MIN;
/// Marks are no closer than this: microseconds.
const DISTANCE: i64 = 60_000_000;
/// Beyond so many every second one goes.
const MOST: usize = 1_024;

/// Transaction ids, and since when those from each on have received batches: microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// In ascending order of both.
    marks: Vec<(u64, i64)>,
}

impl Marks {
    pub fn new() -> Self {
        Self { marks: vec![(0, ALWAYS)] }
    }

    /// Notes that ids from `next` on, which was still to be given, receive nothing before `time`.
    pub fn add(&mut self, next: u64, time: i64) {
        let (last, at) = self.marks.last().copied().unwrap_or((0, ALWAYS));
        if next > last && time >= at.saturating_add(DISTANCE) {
            self.marks.push((next, time));
        }
        if self.marks.len() > MOST {
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// Since when a transaction can have received batches.
    pub fn since(&self, xid: u64) -> i64 {
        let behind = self.marks.partition_point(|(next, _)| *next <= xid);
        behind.checked_sub(1).map_or(ALWAYS, |mark| self.marks[mark].1)
    }

    /// Nobody asks for smaller ids any more.
    pub fn forget_before(&mut self, xid: u64) {
        let behind = self.marks.partition_point(|(next, _)| *next <= xid);
        self.marks.drain(..behind.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Transactions get ids while the clock goes anywhere, and looks come in between.
        #[test]
        fn no_batch_is_older_than_its_transaction_s_bound(
            steps in prop::collection::vec((0_u8..3, -100_i64..200), 1..3_000),
        ) {
            let (mut clock, mut published, mut next_xid) = (0_i64, ALWAYS, 3_u64);
            let mut marks = Marks::new();
            let mut open: Vec<(u64, i64)> = Vec::new();
            for (step, seconds) in steps {
                clock += seconds * 1_000_000;
                match step {
                    0 => {
                        published = published.max(clock);
                        marks.add(next_xid, published);
                        if let Some((oldest, _)) = open.first() {
                            marks.forget_before(*oldest);
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
                    prop_assert!(marks.since(*xid) <= *received_at);
                }
            }
        }
    }

    #[test]
    fn the_bound_follows_the_looks() {
        let mut marks = Marks::new();
        assert_eq!(marks.since(7), ALWAYS);
        marks.add(10, 1_000_000_000);
        marks.add(11, 1_000_000_001);
        marks.add(20, 2_000_000_000);
        assert_eq!(
            (marks.since(9), marks.since(10), marks.since(19)),
            (ALWAYS, 1_000_000_000, 1_000_000_000)
        );
        assert_eq!(marks.since(25), 2_000_000_000);
        marks.forget_before(21);
        assert_eq!(marks.marks, [(20, 2_000_000_000)]);
    }

    #[test]
    fn marks_do_not_pile_up() {
        let mut marks = Marks::new();
        for number in 1..100_000 {
            marks.add(number, number as i64 * DISTANCE);
        }
        assert!(marks.marks.len() <= MOST);
        assert_eq!(marks.since(0), ALWAYS);
    }
}
