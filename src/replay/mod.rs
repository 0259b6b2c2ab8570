//! Replay: the time before which nothing of an org is shown.

mod event_json;
mod floor;

pub use floor::statement_start;
