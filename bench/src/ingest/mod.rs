//! How fast events are stored.

pub mod contender;
pub mod versus;
