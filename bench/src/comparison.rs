//! What is compared, and what each ratio has to reach.

use anyhow::Result;

use crate::ingest;
use crate::options::Options;
use crate::results::Results;
use crate::sample::Samples;
use crate::server::Server;
use crate::{purge, replay, size};

/// One ratio of the result: ours over theirs, so higher is better.
#[derive(Debug)]
pub struct Key {
    pub key: &'static str,
    pub must: f64,
    pub aim: f64,
}

const fn key(key: &'static str, must: f64, aim: f64) -> Key {
    Key { key, must, aim }
}

pub const KEYS: [Key; 10] = [
    key("ingest_vs_row_inserts", 40.0, 80.0),
    key("ingest_vs_insert_json", 2.5, 4.0),
    key("ingest_vs_copy_seed", 1.5, 2.5),
    key("ingest_vs_copy_same", 0.9, 1.2),
    key("replay_vs_select", 0.95, 1.0),
    key("replay_vs_offset_paging", 20.0, 100.0),
    key("purge_vs_delete", 100.0, 1000.0),
    key("bytes_seed_vs_ours", 2.3, 3.0),
    key("ingest_scale_orgs", 0.8, 1.0),
    key("ingest_scale_rows", 0.8, 1.0),
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
    Comparison { title: "Ingest of single events", keys: &["ingest_1"], run: ingest::latency::run },
    Comparison { title: "Replay against SELECT", keys: &["replay_vs_select"], run: replay::select::run },
    Comparison {
        title: "Replay against paging",
        keys: &["replay_vs_offset_paging"],
        run: replay::paging::run,
    },
    Comparison { title: "Replay of much", keys: &["replay_large"], run: replay::large::run },
    Comparison { title: "Bytes of an event", keys: &["bytes_seed_vs_ours"], run: size::run },
    Comparison { title: "Purge", keys: &["purge_vs_delete"], run: purge::run },
    Comparison { title: "Ingest with many orgs", keys: &["ingest_scale_orgs"], run: ingest::scale::orgs },
    Comparison { title: "Ingest with much stored", keys: &["ingest_scale_rows"], run: ingest::scale::rows },
];
