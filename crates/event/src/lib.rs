//! One event: its fields, their aliases, its times, JSON in and JSON out.
//!
//! This crate uses nothing of PostgreSQL except the limits of its types. So it can be tested, fuzzed
//! and measured without a server. [`decode`] turns a batch of JSON into [`Event`]s, [`encode`]
//! turns the columns of a stored event back into JSON; `decode(encode(row))` is `row`.
//!
//! # Nothing that came in is lost
//! Members without a column are stored in `metadata`: unknown keys, aliases that are overridden by their canonical
//! name, and the original of every value whose conversion to its column was not exact.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unimplemented)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod decode;
mod encode;
mod error;
mod inet;
mod json;
mod number;
mod time;

use std::borrow::Cow;

pub use decode::{Decoded, Format, OnInvalid, Rejection, decode};
pub use encode::{EventColumns, encode, encoded_length};
pub use error::{EventError, Problem};
pub use inet::{Inet, STORED_V4, STORED_V6};
pub use time::{Clock, MIN_CREATED_AT};

/// Levels of nesting that the metadata of one event may have, its own object being the first.
///
/// Far above what real events use, and far below what the recursive parser of `jsonb` needs
/// `max_stack_depth` for.
pub const MAX_DEPTH: usize = 128;

/// Bytes that one event may have as JSON text, and that its metadata may take as `jsonb`.
///
/// `jsonb` ends at 256 MiB for one value; a lower limit here makes that a clear error of the event
/// instead of a failure of the statement.
pub const MAX_EVENT_BYTES: usize = 255 << 20;

/// Events that one batch may have, valid and invalid ones together.
///
/// An event takes about 200 bytes of memory, but only two of text: without a limit, a batch of
/// 100 MB could take the server down.
pub const MAX_BATCH_EVENTS: usize = 1_000_000;

/// One decoded event, in the types of the table's columns.
///
/// Text is borrowed from the batch unless it had escapes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Microseconds since the Unix epoch; the time of arrival when the event names none.
    pub created_at: i64,
    /// The server that the event comes from.
    pub host: Option<Cow<'a, str>>,
    /// `GET` when absent.
    pub method: Cow<'a, str>,
    /// `/` when absent.
    pub path: Cow<'a, str>,
    /// `200` when absent.
    pub status: i32,
    /// Milliseconds.
    pub response_time: Option<i32>,
    /// Bytes.
    pub response_size: Option<i64>,
    /// The client's `User-Agent`.
    pub user_agent: Option<Cow<'a, str>>,
    /// The client's `Referer`.
    pub referrer: Option<Cow<'a, str>>,
    /// The client's address.
    pub ip_address: Option<Inet>,
    /// The text of a JSON object that `jsonb` accepts; `None` if there is nothing to keep.
    pub metadata: Option<String>,
}
