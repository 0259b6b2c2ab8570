//! The counters and timers of a database.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    IngestBatches,
    IngestEvents,
    IngestRejected,
    IngestExpired,
    IngestDuplicates,
    Replays,
    ReplayPages,
    ReplayGaps,
    CursorFetches,
    CursorEvents,
    PurgeRuns,
    PurgeChunks,
    PurgeEvents,
    PurgeRescued,
    SequencerPolls,
    SequencerBatches,
    MirrorEntries,
    MirrorResent,
    MirrorExpired,
    MirrorOversized,
    MirrorTransactions,
    MirrorRetries,
    MirrorResyncs,
}

impl Counter {
    pub const COUNT: usize = 23;
    pub const ALL: [Self; Self::COUNT] = [
        Self::IngestBatches,
        Self::IngestEvents,
        Self::IngestRejected,
        Self::IngestExpired,
        Self::IngestDuplicates,
        Self::Replays,
        Self::ReplayPages,
        Self::ReplayGaps,
        Self::CursorFetches,
        Self::CursorEvents,
        Self::PurgeRuns,
        Self::PurgeChunks,
        Self::PurgeEvents,
        Self::PurgeRescued,
        Self::SequencerPolls,
        Self::SequencerBatches,
        Self::MirrorEntries,
        Self::MirrorResent,
        Self::MirrorExpired,
        Self::MirrorOversized,
        Self::MirrorTransactions,
        Self::MirrorRetries,
        Self::MirrorResyncs,
    ];

    /// The name in Prometheus style, and the help text.
    pub fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::IngestBatches => ("tailstream_ingest_batches_total", "Batches committed."),
            Self::IngestEvents => ("tailstream_ingest_events_total", "Events committed."),
            Self::IngestRejected => {
                ("tailstream_ingest_rejected_events_total", "Invalid events quarantined.")
            }
            Self::IngestExpired => (
                "tailstream_ingest_expired_events_total",
                "Events that were older than their org's retention on arrival.",
            ),
            Self::IngestDuplicates => (
                "tailstream_ingest_duplicate_batches_total",
                "Batches sent again with a known idempotency key.",
            ),
            Self::Replays => {
                ("tailstream_replays_total", "Calls of ts_replay and ts_replay_schedule that began to read.")
            }
            Self::ReplayPages => {
                ("tailstream_replay_pages_total", "Pages read, including those of ts_replay_schedule.")
            }
            Self::ReplayGaps => (
                "tailstream_replay_gaps_total",
                "Gaps reported to readers: events that were lost before they were read.",
            ),
            Self::CursorFetches => ("tailstream_cursor_fetches_total", "Calls of ts_cursor_fetch."),
            Self::CursorEvents => ("tailstream_cursor_events_total", "Events returned by durable cursors."),
            Self::PurgeRuns => (
                "tailstream_purge_runs_total",
                "Calls of ts_apply_retention, except those refused because another one was running.",
            ),
            Self::PurgeChunks => ("tailstream_purge_chunks_dropped_total", "Chunks of events dropped."),
            Self::PurgeEvents => (
                "tailstream_purge_events_dropped_total",
                "Events dropped with their chunks, estimated from statistics.",
            ),
            Self::PurgeRescued => (
                "tailstream_purge_events_rescued_total",
                "Events copied into their org's present tier before a drop.",
            ),
            Self::SequencerPolls => {
                ("tailstream_sequencer_looks_total", "Polls of the ledger by the sequencer.")
            }
            Self::SequencerBatches => {
                ("tailstream_sequencer_batches_total", "Batches that were given their position.")
            }
            Self::MirrorEntries => ("tailstream_mirror_entries_total", "Entries that Redis has confirmed."),
            Self::MirrorResent => (
                "tailstream_mirror_resent_entries_total",
                "Entries sent again, after a failure or for a resync.",
            ),
            Self::MirrorExpired => (
                "tailstream_mirror_expired_events_total",
                "Events not sent because they were older than their stream's age limit.",
            ),
            Self::MirrorOversized => (
                "tailstream_mirror_oversized_events_total",
                "Events not sent because they exceed the size limit of Redis.",
            ),
            Self::MirrorTransactions => {
                ("tailstream_mirror_pipelines_total", "Transactions that Redis has confirmed.")
            }
            Self::MirrorRetries => {
                ("tailstream_mirror_retries_total", "Failed attempts, each of which is repeated.")
            }
            Self::MirrorResyncs => {
                ("tailstream_mirror_rebuilds_total", "Streams written again from the table.")
            }
        }
    }
}

/// A timer, with a histogram of its durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    Ingest,
    SequencerPoll,
    MirrorLag,
    MirrorTransaction,
}

impl Timer {
    pub const COUNT: usize = 4;
    pub const ALL: [Self; Self::COUNT] =
        [Self::Ingest, Self::SequencerPoll, Self::MirrorLag, Self::MirrorTransaction];

    /// The name in Prometheus style, and the help text.
    pub fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Ingest => {
                ("tailstream_ingest_duration_seconds", "Duration of ingest calls, without the commit.")
            }
            Self::SequencerPoll => {
                ("tailstream_sequencer_look_duration_seconds", "Duration of polls that found batches.")
            }
            Self::MirrorLag => (
                "tailstream_mirror_lag_seconds",
                "Time from the assignment of a batch's position to the confirmation of its last entry by Redis.",
            ),
            Self::MirrorTransaction => (
                "tailstream_mirror_pipeline_duration_seconds",
                "Duration of Redis transactions, including the round trip.",
            ),
        }
    }
}

/// Upper bounds of the buckets in seconds. One more bucket has no bound.
pub const BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// A histogram of durations.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(took.as_micros() as u64, Relaxed);
    }

    /// For each bound, the number of durations up to it; last, the number of all.
    pub fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.buckets[bucket].load(Relaxed);
            sum
        })
    }

    pub fn sum_seconds(&self) -> f64 {
        self.microseconds.load(Relaxed) as f64 / 1e6
    }

    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
        self.microseconds.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_and_timer_has_its_own_name() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|counter| counter.describe().0).collect();
        names.extend(Timer::ALL.iter().map(|timer| timer.describe().0));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Counter::ALL.iter().enumerate().all(|(index, counter)| *counter as usize == index));
        assert!(Timer::ALL.iter().enumerate().all(|(index, timer)| *timer as usize == index));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100));
        histogram.observe(Duration::from_micros(101));
        histogram.observe(Duration::from_secs(60));
        let cumulative = histogram.cumulative();
        assert_eq!((cumulative[0], cumulative[1], cumulative[14], cumulative[15]), (1, 2, 2, 3));
        assert!((histogram.sum_seconds() - 60.000_201).abs() < 1e-9);
    }
}
