//! Sequence numbers of batches, and the stream ids that belong to them.
//!
//! The ids of a Redis Stream are `<milliseconds>-<number>` and must increase. Here the milliseconds are the time at which
//! the sequencer assigned the batch its sequence number, and never less than the previous batch's. The number counts up
//! within the millisecond over all orgs. So the ids of each org increase even when the clock is set back.

/// The sequence number and stream id of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    pub seq: i64,
    /// Milliseconds since the Unix epoch.
    pub ms: i64,
    /// Second part of the stream id of the first event.
    pub stream_seq: i64,
    /// Number of events in all earlier batches.
    pub events_before: i64,
}

/// The values for the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    pub seq: i64,
    pub ms: i64,
    pub stream_seq: i64,
    pub events: i64,
}

impl Counter {
    /// Moves on to the present, if it is later than the time of the last batch.
    pub fn advance(&mut self, now_ms: i64) {
        if now_ms > self.ms {
            (self.ms, self.stream_seq) = (now_ms, 0);
        }
    }

    /// Takes the next sequence number, for a batch of `events` events.
    pub fn take(&mut self, events: i64) -> Sequence {
        let sequence =
            Sequence { seq: self.seq, ms: self.ms, stream_seq: self.stream_seq, events_before: self.events };
        self.seq += 1;
        self.stream_seq += events;
        self.events += events;
        sequence
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
            let sequence = counter.take(events);
            assert!((sequence.ms, sequence.stream_seq) > last);
            last = (sequence.ms, sequence.stream_seq + events - 1);
        }
        assert_eq!(counter, Counter { seq: 6, ms: 1_001, stream_seq: 70_005, events: 70_011 });
    }
}
