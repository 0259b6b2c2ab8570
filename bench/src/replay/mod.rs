//! How fast events come back.

pub mod large;
pub mod paging;
pub mod select;
mod walk;
