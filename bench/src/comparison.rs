//! All comparisons, in the order in which they run.

use anyhow::Result;

use crate::context::Context;
use crate::results::Results;
use crate::{ingest, mirror, purge, replay, size};

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
    use crate::key::KEYS;

    #[test]
    fn every_key_is_measured_by_one_comparison() {
        for key in KEYS {
            let comparisons = ALL.iter().filter(|comparison| comparison.keys.contains(&key.key));
            assert_eq!(comparisons.count(), 1, "{}", key.key);
        }
    }
}
