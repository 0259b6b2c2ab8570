//! Replay: pages, cursors and schedules of an org's past, and the time before which nothing of it is shown.

mod cursor;
mod event_json;
mod filter;
mod floor;
mod live;
mod page;
mod schedule;
mod token;

use floor::{check_start, retention_of};
