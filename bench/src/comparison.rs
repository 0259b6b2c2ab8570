//! What is compared, and what each ratio has to reach.

use anyhow::Result;

use crate::ingest;
use crate::options::Options;
use crate::results::Results;
use crate::sample::Samples;
use crate::server::Server;

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
pub const ALL: &[Comparison] = &[Comparison {
    title: "Ingest",
    keys: &[
        "ingest_vs_row_inserts",
        "ingest_vs_insert_json",
        "ingest_vs_copy_seed",
        "ingest_vs_copy_same",
    ],
    run: ingest::versus::run,
}];
