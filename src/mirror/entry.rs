//! Entries of a Redis Stream.

/// One event to be written to a stream, and its stream id.
pub struct Entry {
    /// The first number of the stream id, in milliseconds since the Unix epoch.
    pub ms: i64,
    /// The second number of the stream id.
    pub seq: i64,
    pub event_id: i64,
    /// The event as JSON, as `encode` writes it.
    pub data: String,
}

impl Entry {
    /// The time of the event, as it stands at the beginning of the JSON: RFC 3339 with microseconds, or a number if
    /// RFC 3339 cannot express the year.
    pub fn time(&self) -> &str {
        let rest = self.data.strip_prefix(TIME_FIRST).unwrap_or_default();
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        rest[..end].trim_matches('"')
    }
}

/// The JSON of every event begins with this text.
const TIME_FIRST: &str = "{\"created_at\":";

/// An event that is left out of its stream because Redis does not accept an entry of its size.
pub struct Oversized {
    pub org: String,
    pub event_id: i64,
    /// The length of its JSON in bytes.
    pub bytes: usize,
    /// The stream id that its entry would have had.
    pub ms: i64,
    pub seq: i64,
}

/// A stream id as Redis writes it.
pub fn stream_id(ms: i64, seq: i64) -> String {
    format!("{ms}-{seq}")
}
