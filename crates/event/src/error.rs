//! The errors of events, with messages, details and hints.

use std::fmt;

use super::{MAX_BATCH_EVENTS, MAX_DEPTH, MAX_EVENT_BYTES};

/// Longest excerpt of a value that a message repeats, in bytes.
const EXCERPT_BYTES: usize = 80;

/// An error and its place in the batch.
///
/// Displays as `event 17: field "status": expected an integer, found "abc"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventError {
    /// Position of the event in its batch, from 0; `None` if the batch as a whole is at fault.
    pub event: Option<usize>,
    /// The key as the sender wrote it, shortened if it is long.
    pub field: Option<String>,
    /// The error.
    pub problem: Problem,
}

/// An error of a value, an event or a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not JSON. `position` counts characters from 1: in the batch, or for
    /// newline-delimited JSON in the line.
    #[error("invalid JSON at character {position}: {reason}")]
    Syntax { position: usize, reason: String },
    /// Valid JSON, but neither an event nor a batch of them.
    #[error("expected {expected}, found {found}")]
    Shape { expected: &'static str, found: String },
    /// A field holds another type of JSON value than its column needs.
    #[error("expected {expected}, found {found}")]
    WrongType { expected: &'static str, found: String },
    /// Text that is no time at all.
    #[error("invalid time {value}: {reason}")]
    InvalidTime { value: String, reason: String },
    /// A time that does not exist, or that a timestamp cannot hold.
    #[error("time {value} is out of range: {reason}")]
    TimeOutOfRange { value: String, reason: String },
    /// An event that has not happened yet.
    #[error("{value} is {ahead} ahead of the server's clock")]
    InFuture { value: String, ahead: String },
    /// A number that its column cannot hold.
    #[error("{value} is out of range for type {pg_type}")]
    OutOfRange { value: String, pg_type: &'static str },
    /// Text that is no IP address.
    #[error("invalid IP address {value}")]
    InvalidAddress { value: String },
    /// The same key twice in one object: `jsonb` would silently lose one of the two.
    #[error("duplicate key \"{key}\"")]
    DuplicateKey { key: String },
    /// `\u0000`, which PostgreSQL's text cannot hold.
    #[error("the character \\u0000 cannot be stored as text")]
    NulCharacter,
    /// Half of a surrogate pair, which is no character.
    #[error("unpaired surrogate {escape}")]
    LoneSurrogate { escape: String },
    /// Deeper nesting than [`MAX_DEPTH`].
    #[error("nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// More bytes than [`MAX_EVENT_BYTES`].
    #[error("{what} has more than {MAX_EVENT_BYTES} bytes")]
    TooLarge { what: &'static str },
    /// More events than [`MAX_BATCH_EVENTS`].
    #[error("the batch has more than {MAX_BATCH_EVENTS} events")]
    TooMany,
}

impl EventError {
    /// The SQLSTATE that PostgreSQL itself would use for this kind of error.
    pub fn sqlstate(&self) -> &'static str {
        match self.problem {
            Problem::Syntax { .. } | Problem::Shape { .. } => "22032",
            Problem::WrongType { .. } | Problem::InvalidAddress { .. } | Problem::LoneSurrogate { .. } => {
                "22P02"
            }
            Problem::InvalidTime { .. } => "22007",
            Problem::TimeOutOfRange { .. } | Problem::InFuture { .. } => "22008",
            Problem::OutOfRange { .. } => "22003",
            Problem::DuplicateKey { .. } => "22030",
            Problem::NulCharacter => "22P05",
            Problem::TooDeep | Problem::TooLarge { .. } | Problem::TooMany => "22023",
        }
    }

    /// More about the cause, as a full sentence.
    pub fn detail(&self) -> Option<String> {
        let text = match self.problem {
            Problem::DuplicateKey { .. } => {
                "One object has this key more than once, and only one value could be kept."
            }
            Problem::LoneSurrogate { .. } => {
                "A high surrogate (\\ud800 to \\udbff) must be followed by a low one (\\udc00 to \\udfff)."
            }
            Problem::OutOfRange { pg_type: "numeric", .. } => {
                "A number has at most 131072 digits before and 16383 after the decimal point."
            }
            Problem::TooLarge { what: "metadata" } => {
                "Size counts numbers written out in full, and the space that each value takes as jsonb."
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// A hint for the sender, as a full sentence.
    pub fn hint(&self) -> Option<String> {
        let text = match &self.problem {
            Problem::InvalidTime { .. } => {
                "Send RFC 3339 such as \"2024-03-15T10:30:45.123456Z\", or the seconds or milliseconds since 1970 as a number."
            }
            Problem::InFuture { .. } => "Set the sender's clock, or raise tailstream.max_future_skew.",
            Problem::WrongType { expected, found } if found.starts_with('"') && *expected != "a string" => {
                "Send a JSON number, without quotes."
            }
            Problem::TooMany => "Send the events in several batches.",
            Problem::InvalidAddress { .. } => {
                "Send one IPv4 or IPv6 address, optionally with a prefix length such as /24."
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(event) = self.event {
            write!(f, "event {event}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "field \"{field}\": ")?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for EventError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.problem)
    }
}

impl From<Problem> for EventError {
    fn from(problem: Problem) -> Self {
        Self { event: None, field: None, problem }
    }
}

impl Problem {
    /// Says which field has the problem.
    pub(super) fn in_field(self, field: &str) -> EventError {
        EventError { event: None, field: Some(excerpt(field)), problem: self }
    }
}

/// The beginning of `value`, cut at a character boundary, for use in a message.
pub(super) fn excerpt(value: &str) -> String {
    if value.len() <= EXCERPT_BYTES {
        return value.to_owned();
    }
    let end = value.floor_char_boundary(EXCERPT_BYTES);
    format!("{}…", &value[..end])
}
