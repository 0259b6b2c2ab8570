//! Replay: pages, cursors and schedules of an org's past, and the time before which nothing of it is shown.

mod cursor;
mod event_json;
mod filter;
mod live;
mod page;
mod playback;
mod retention_cutoff;
mod token;

use retention_cutoff::{check_start, retention_of};
