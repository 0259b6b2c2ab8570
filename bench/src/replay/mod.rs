//! How fast events come back.

pub mod cursor;
mod depth;
pub mod large;
mod pages;
pub mod paging;
pub mod select;
pub mod tail;
mod walk;

/// The databases of what needs a sequencer.
pub const DATABASES: [&str; 2] = [cursor::DATABASE, tail::DATABASE];
