//! A part that Redis does not survive, or does not answer, again and again: narrowed down to one event, whose org is set
//! aside. The others must not wait for it.

use super::super::position::EventPosition;

/// Of a part that fails, the next attempt has this share of the events.
const NARROWER: usize = 8;

/// Where sending fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Where the part that failed began, and how often it did.
    start: EventPosition,
    failures: u32,
    /// What was tried last is before this place, and parts have no more events than so up to there.
    end: EventPosition,
    events: usize,
}

impl Suspect {
    /// A part failed for the first time. That may have been any outage: the next attempt is the same.
    pub fn new(start: EventPosition, end: EventPosition) -> Self {
        Self { start, failures: 1, end, events: usize::MAX }
    }

    /// Another part failed, with so many events; returns whether it is to blame for that.
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
        self.events = (events / NARROWER).max(1);
        false
    }

    /// How many events a part may have that begins here; `None` where there is no suspicion any more.
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

    /// Events with these numbers do not get through; returns which were blamed, and how many attempts failed.
    fn send(all: i64, poison: &[i64]) -> (Vec<i64>, usize) {
        let (mut next, mut suspect, mut blamed, mut failed) = (0, None::<Suspect>, Vec::new(), 0);
        while next < all {
            let limit =
                suspect.as_ref().and_then(|suspect| suspect.limit(at(next))).unwrap_or(1_000).min(1_000);
            let transaction: Vec<i64> =
                (next..all).filter(|event| !blamed.contains(event)).take(limit).collect();
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
                        blamed.push(transaction[0]);
                    }
                }
            }
            assert!(failed < 100, "it does not come to an end: {suspect:?}");
        }
        (blamed, failed)
    }

    #[test]
    fn the_one_that_fails_is_found_and_no_other() {
        for poison in [0, 1, 7, 8, 499, 998, 999] {
            let (blamed, failed) = send(3_000, &[poison]);
            assert_eq!(blamed, [poison]);
            assert!(failed <= 8, "{failed} attempts");
        }
        assert_eq!(send(3_000, &[]).0, Vec::<i64>::new());
        assert_eq!(send(3_000, &[5, 6, 2_500]).0, [5, 6, 2_500]);
    }

    #[test]
    fn a_single_failure_changes_nothing() {
        let mut suspect = Suspect::new(at(1), at(9));
        assert_eq!(suspect.limit(at(1)), Some(usize::MAX));
        assert!(!suspect.failed(at(20), at(30), 10), "somewhere else");
        assert_eq!(suspect.limit(at(20)), Some(usize::MAX));
        assert_eq!(suspect.limit(at(30)), None);
    }
}
