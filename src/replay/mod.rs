//! Replay: pages, durable cursors and playback of an org's events, and the retention cutoff.

mod cursor;
mod event_json;
mod filter;
mod live;
mod page;
mod planned_start;
mod playback;
mod retention_cutoff;
mod token;

use retention_cutoff::{check_start, retention_of};

#[cfg(feature = "pg_test")]
pub use planned_start::bounds as interval_bounds;
