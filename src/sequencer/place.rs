//! Places in the order: running numbers, and the stream ids that go with them.
//!
//! The ids of a Redis Stream are `<milliseconds>-<number>` and only grow. Ours have the time at which the sequencer
//! placed the batch, never less than the time before it, and count on within the millisecond over all orgs: so
//! the ids of each org grow, whatever the clock does.

/// The place of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub seq: i64,
    /// Milliseconds since the Unix epoch.
    pub ms: i64,
    /// Second part of the stream id of the first event.
    pub stream_seq: i64,
    /// Events of all places before.
    pub events_before: i64,
}

/// Where the next batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    pub seq: i64,
    pub ms: i64,
    pub stream_seq: i64,
    pub events: i64,
}

impl Counter {
    /// Moves on to the present, if it is later than the last place.
    pub fn advance(&mut self, now_ms: i64) {
        if now_ms > self.ms {
            (self.ms, self.stream_seq) = (now_ms, 0);
        }
    }

    /// The next place, for a batch of so many events.
    pub fn take(&mut self, events: i64) -> Place {
        let place =
            Place { seq: self.seq, ms: self.ms, stream_seq: self.stream_seq, events_before: self.events };
        self.seq += 1;
        self.stream_seq += events;
        self.events += events;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_also_when_the_clock_goes_back() {
        let mut counter = Counter { seq: 1, ..Counter::default() };
        let mut last = (-1, 0);
        for (now, events) in [(1_000, 3), (1_000, 1), (900, 2), (1_001, 5), (1_001, 70_000)] {
            counter.advance(now);
            let place = counter.take(events);
            assert!((place.ms, place.stream_seq) > last);
            last = (place.ms, place.stream_seq + events - 1);
        }
        assert_eq!(counter, Counter { seq: 6, ms: 1_001, stream_seq: 70_005, events: 70_011 });
    }
}
