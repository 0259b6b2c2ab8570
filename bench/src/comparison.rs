//! What is compared, and what each ratio has to reach.

use anyhow::Result;

use crate::options::Options;
use crate::results::Results;
use crate::sample::Samples;
use crate::server::Server;
use crate::{ingest, mirror, purge, replay, size};

/// What a figure has to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Higher is better: a ratio of ours over theirs, or a rate.
    AtLeast { must: f64, aim: f64 },
    /// Lower is better: a time.
    AtMost { must: f64, aim: f64 },
    /// Another key of the same measurement has the goal.
    None,
}

impl Goal {
    pub fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast { must, .. } => value >= must,
            Self::AtMost { must, .. } => value <= must,
            Self::None => true,
        }
    }

    pub fn is_aim_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast { aim, .. } => value >= aim,
            Self::AtMost { aim, .. } => value <= aim,
            Self::None => false,
        }
    }
}

/// One figure of the result.
#[derive(Debug)]
pub struct Key {
    pub key: &'static str,
    pub goal: Goal,
}

const fn key(key: &'static str, must: f64, aim: f64) -> Key {
    Key { key, goal: Goal::AtLeast { must, aim } }
}

const fn limit(key: &'static str, must: f64, aim: f64) -> Key {
    Key { key, goal: Goal::AtMost { must, aim } }
}

pub const KEYS: [Key; 30] = [
    key("ingest_vs_row_inserts", 40.0, 80.0),
    key("ingest_vs_insert_json", 2.5, 4.0),
    key("ingest_vs_copy_seed", 1.5, 2.5),
    key("ingest_vs_copy_same", 0.9, 1.2),
    key("bulk_insert_vs_ingest", 0.3, 0.7),
    key("replay_vs_select", 0.95, 1.0),
    key("replay_vs_offset_paging", 20.0, 100.0),
    key("page_vs_offset", 20.0, 100.0),
    key("page_depth_cost", 0.7, 1.0),
    key("cursor_vs_select", 0.5, 0.8),
    limit("cursor_tail_lag_ms_p99", 50.0, 10.0),
    Key { key: "purge_vs_delete", goal: Goal::None },
    limit("purge_blocks_others_ms", 50.0, 10.0),
    key("bytes_seed_vs_ours", 2.3, 3.0),
    key("ingest_scale_orgs", 0.8, 1.0),
    key("ingest_scale_rows", 0.8, 1.0),
    key("ingest_with_mirror_vs_without", 0.75, 0.9),
    limit("mirror_commit_overhead_ms_p99", 2.0, 0.3),
    Key { key: "mirror_lag_ms_p50", goal: Goal::None },
    limit("mirror_lag_ms_p99", 50.0, 5.0),
    key("mirror_drain_events_per_s", 100_000.0, 250_000.0),
    key("mirror_drain_vs_xadd", 0.3, 0.6),
    key("redis_memory_saved", 0.8, 0.9),
    limit("history_cost_commit_to_xread", 1.5, 1.1),
    limit("history_cost_fetch", 2.0, 1.2),
    limit("history_cost_replay_live", 2.0, 1.2),
    limit("history_cost_mirror_status", 2.0, 1.2),
    limit("history_cost_set_org_tier", 2.0, 1.2),
    key("verify_entries_per_s", 20_000.0, 100_000.0),
    key("resync_entries_per_s", 50_000.0, 150_000.0),
];

/// Names by which `--only` asks for figures that are compared with nothing.
pub const ABSOLUTE: [&str; 2] = ["ingest_1", "replay_large"];

/// What every comparison works with.
pub struct Context<'a> {
    pub server: &'a Server,
    pub samples: &'a Samples,
    pub options: &'a Options,
}

/// Measures and writes down one key or several that share their set-up.
pub struct Comparison {
    pub title: &'static str,
    pub keys: &'static [&'static str],
    pub run: fn(&Context, &mut Results) -> Result<()>,
}

/// In the order in which they run: what fills the disk comes last.
pub const ALL: &[Comparison] = &[
    Comparison {
        title: "Ingest in batches of 1,000",
        keys: &[
            "ingest_vs_row_inserts",
            "ingest_vs_insert_json",
            "ingest_vs_copy_seed",
            "ingest_vs_copy_same",
        ],
        run: ingest::versus::run,
    },
    Comparison { title: "INSERT of 1,000 rows", keys: &["bulk_insert_vs_ingest"], run: ingest::versus::bulk },
    Comparison { title: "Ingest of single events", keys: &["ingest_1"], run: ingest::latency::run },
    Comparison { title: "Replay against SELECT", keys: &["replay_vs_select"], run: replay::select::run },
    Comparison {
        title: "Replay against paging",
        keys: &["replay_vs_offset_paging", "page_vs_offset"],
        run: replay::paging::run,
    },
    Comparison {
        title: "Replay of much",
        keys: &["replay_large", "page_depth_cost"],
        run: replay::large::run,
    },
    Comparison {
        title: "Durable cursor against SELECT",
        keys: &["cursor_vs_select"],
        run: replay::cursor::run,
    },
    Comparison {
        title: "From commit to a waiting cursor",
        keys: &["cursor_tail_lag_ms_p99"],
        run: replay::tail::run,
    },
    Comparison { title: "Bytes of an event", keys: &["bytes_seed_vs_ours"], run: size::run },
    Comparison { title: "Purge", keys: &["purge_vs_delete", "purge_blocks_others_ms"], run: purge::run },
    Comparison {
        title: "Ingest beside a mirror",
        keys: &["ingest_with_mirror_vs_without"],
        run: mirror::rate::run,
    },
    Comparison {
        title: "Ingest of single events beside a mirror",
        keys: &["mirror_commit_overhead_ms_p99"],
        run: mirror::overhead::run,
    },
    Comparison {
        title: "From commit to XREAD",
        keys: &["mirror_lag_ms_p50", "mirror_lag_ms_p99"],
        run: mirror::lag::run,
    },
    Comparison {
        title: "Draining a backlog into Redis",
        keys: &["mirror_drain_events_per_s", "mirror_drain_vs_xadd"],
        run: mirror::drain::run,
    },
    Comparison { title: "Memory of Redis", keys: &["redis_memory_saved"], run: mirror::memory::run },
    Comparison {
        title: "What a long history costs",
        keys: &[
            "history_cost_commit_to_xread",
            "history_cost_fetch",
            "history_cost_replay_live",
            "history_cost_mirror_status",
            "history_cost_set_org_tier",
        ],
        run: mirror::history::run,
    },
    Comparison {
        title: "Reading batches of one event back",
        keys: &["verify_entries_per_s", "resync_entries_per_s"],
        run: mirror::single::run,
    },
    Comparison { title: "Ingest with many orgs", keys: &["ingest_scale_orgs"], run: ingest::scale::orgs },
    Comparison { title: "Ingest with much stored", keys: &["ingest_scale_rows"], run: ingest::scale::rows },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_from_above_and_the_others_from_below() {
        let goal = |key: Key| key.goal;
        let (least, most) = (goal(key("", 1.0, 2.0)), goal(limit("", 2.0, 1.0)));
        assert!(least.is_reached(1.0) && !least.is_reached(0.9) && least.is_aim_reached(2.0));
        assert!(most.is_reached(2.0) && !most.is_reached(2.1) && most.is_aim_reached(-1.0));
        assert!(!least.is_aim_reached(1.9) && !most.is_aim_reached(1.1));
        assert!(!least.is_reached(f64::NAN) && !most.is_reached(f64::NAN));
    }

    #[test]
    fn every_key_is_measured_by_one_comparison() {
        for key in KEYS {
            let comparisons = ALL.iter().filter(|comparison| comparison.keys.contains(&key.key));
            assert_eq!(comparisons.count(), 1, "{}", key.key);
        }
    }
}
