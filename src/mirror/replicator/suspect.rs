//! Finds the event that makes a transaction fail again and again, because Redis crashes or does not answer. The org of
//! that event is set aside, so that the other orgs do not wait for it.

use super::super::position::EventPosition;

/// After a failure, the next transaction has the number of events divided by this.
const NARROWING: usize = 8;

/// The range in which transactions fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The position at which the failed transaction began, and how often it failed.
    start: EventPosition,
    failures: u32,
    /// The end of the range that was tried. Before it, transactions have at most `events` events.
    end: EventPosition,
    events: usize,
}

impl Suspect {
    /// The first failure of a transaction. The cause may be any outage, so the next attempt is the same.
    pub fn new(start: EventPosition, end: EventPosition) -> Self {
        Self { start, failures: 1, end, events: usize::MAX }
    }

    /// Records another failure, of a transaction with this number of events. Returns whether its only event is the
    /// cause.
    pub fn failed(&mut self, start: EventPosition, end: EventPosition, events: usize) -> bool {
        let is_same = start == self.start;
        if !is_same && start >= self.end {
            *self = Self::new(start, end);
            return false;
        }
        self.failures = if is_same { self.failures + 1 } else { 1 };
        self.start = start;
        self.end = self.end.max(end);
        if events <= 1 && self.failures > 1 {
            return true;
        }
        self.events = (events / NARROWING).max(1);
        false
    }

    /// The largest number of events of a transaction that begins at `start`; `None` if there is no limit any more.
    pub fn limit(&self, start: EventPosition) -> Option<usize> {
        (start < self.end).then_some(self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: i64) -> EventPosition {
        EventPosition::before(seq)
    }

    /// Sends events with numbers below `all`. Transactions with one of the numbers `poison` fail. Returns the events
    /// that were set aside, and the number of failures.
    fn send(all: i64, poison: &[i64]) -> (Vec<i64>, usize) {
        let (mut next, mut suspect, mut found, mut failed) = (0, None::<Suspect>, Vec::new(), 0);
        while next < all {
            let limit =
                suspect.as_ref().and_then(|suspect| suspect.limit(at(next))).unwrap_or(1_000).min(1_000);
            let transaction: Vec<i64> =
                (next..all).filter(|event| !found.contains(event)).take(limit).collect();
            let Some(last) = transaction.last() else { break };
            let end = last + 1;
            if !transaction.iter().any(|event| poison.contains(event)) {
                next = end;
                continue;
            }
            failed += 1;
            match &mut suspect {
                None => suspect = Some(Suspect::new(at(next), at(end))),
                Some(suspect) => {
                    if suspect.failed(at(next), at(end), transaction.len()) {
                        found.push(transaction[0]);
                    }
                }
            }
            assert!(failed < 100, "it does not come to an end: {suspect:?}");
        }
        (found, failed)
    }

    #[test]
    fn exactly_the_failing_events_are_found() {
        for poison in [0, 1, 7, 8, 499, 998, 999] {
            let (found, failed) = send(3_000, &[poison]);
            assert_eq!(found, [poison]);
            assert!(failed <= 8, "{failed} attempts");
        }
        assert_eq!(send(3_000, &[]).0, Vec::<i64>::new());
        assert_eq!(send(3_000, &[5, 6, 2_500]).0, [5, 6, 2_500]);
    }

    #[test]
    fn a_single_failure_does_not_limit_transactions() {
        let mut suspect = Suspect::new(at(1), at(9));
        assert_eq!(suspect.limit(at(1)), Some(usize::MAX));
        assert!(!suspect.failed(at(20), at(30), 10), "somewhere else");
        assert_eq!(suspect.limit(at(20)), Some(usize::MAX));
        assert_eq!(suspect.limit(at(30)), None);
    }
}
