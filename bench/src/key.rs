//! The keys of the figures, and their goals.

/// The goal of a figure.
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
}
