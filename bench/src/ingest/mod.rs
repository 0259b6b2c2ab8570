//! How fast events are stored.

mod contender;
pub mod latency;
pub mod scale;
pub mod versus;
