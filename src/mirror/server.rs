//! The version of the Redis server, and the sizes that it accepts.

use redis::Value;

use super::commands::Commands;
use super::replies::text;
use crate::error::Error;

/// The first version with XTRIM … MINID.
const OLDEST: (u32, u32) = (6, 2);
/// Redis's defaults, for a server that does not report its configuration.
const BULK: u64 = 512 << 20;
const QUERY_BUFFER: u64 = 1 << 30;
/// The number of events in one transaction. Redis serves no other client while it runs a transaction.
pub const MAX_EVENTS: usize = 1_000;
/// A transaction is full when it has this many bytes. One event may be larger.
pub const MAX_BYTES: usize = 1 << 20;

/// The limits of what is sent to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest length of an entry's JSON in bytes. Redis closes the connection without an error if it receives
    /// more.
    pub entry: usize,
    /// A transaction is full when it has this many bytes.
    pub bytes: usize,
    /// The largest number of events in one transaction.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(BULK, QUERY_BUFFER)
    }
}

impl Limits {
    /// `bulk` is the length of the longest string that the server accepts (proto-max-bulk-len), and `query_buffer` the
    /// limit of what it buffers of the commands of one client (client-query-buffer-limit). Both are in bytes.
    fn new(bulk: u64, query_buffer: u64) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            // Commands that MULTI has queued count too.
            entry: size(bulk.min(query_buffer / 2)),
            bytes: MAX_BYTES.min(size(query_buffer / 4)),
            events: MAX_EVENTS,
        }
    }
}

/// The commands whose replies `read_limits` reads.
pub fn limit_queries() -> Commands {
    let mut commands = Commands::default();
    commands.command(&["INFO", "server"]).command(&["CONFIG", "GET", "proto-max-bulk-len"]).command(&[
        "CONFIG",
        "GET",
        "client-query-buffer-limit",
    ]);
    commands
}

/// Reads the replies to `limit_queries`. Where the server does not report a value, Redis's default is assumed. Fails if
/// the server is too old.
pub fn read_limits(replies: &[Value]) -> Result<Limits, Error> {
    let info = replies.first().and_then(text).unwrap_or_default();
    if let Some(version) = info.lines().find_map(|line| line.strip_prefix("redis_version:"))
        && is_too_old(version)
    {
        let (major, minor) = OLDEST;
        return Err(Error::Redis(format!("needs Redis {major}.{minor} or later, and this is {version}")));
    }
    let number = |reply: Option<&Value>| reply.and_then(config_value)?.parse::<u64>().ok().filter(|n| *n > 0);
    Ok(Limits::new(number(replies.get(1)).unwrap_or(BULK), number(replies.get(2)).unwrap_or(QUERY_BUFFER)))
}

fn is_too_old(version: &str) -> bool {
    let mut numbers = version.trim().split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        _ => false,
    }
}

/// The value in the reply to CONFIG GET with one name.
fn config_value(reply: &Value) -> Option<String> {
    match reply {
        Value::Array(pair) => pair.get(1).and_then(text),
        Value::Map(pairs) => pairs.first().and_then(|(_, value)| text(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn config(name: &str, value: &str) -> Value {
        Value::Array(vec![bulk(name), bulk(value)])
    }

    #[test]
    fn a_server_without_minid_is_refused_by_its_version() {
        let limits_of =
            |version: &str| read_limits(&[bulk(&format!("# Server\r\nredis_version:{version}\r\nx:1\r\n"))]);
        for version in ["6.2.0", "7.2.4", "8.0.2", "10.0.0", "unstable", "255.255.255"] {
            assert_eq!(limits_of(version).unwrap(), Limits::default(), "{version}");
        }
        for version in ["5.0.14", "6.0.16", "2.8"] {
            let message = limits_of(version).unwrap_err().to_string();
            assert!(message.contains("needs Redis 6.2 or later") && message.contains(version), "{message}");
        }
    }

    #[test]
    fn limits_are_read_from_the_server() {
        let limits_of = |bulk_limit, query| {
            read_limits(&[
                bulk(""),
                config("proto-max-bulk-len", bulk_limit),
                config("client-query-buffer-limit", query),
            ])
            .unwrap()
        };
        assert_eq!(limits_of("536870912", "1073741824"), Limits::default());
        assert_eq!(limits_of("1048576", "1073741824").entry, 1 << 20);
        let small = limits_of("536870912", "1048576");
        assert_eq!((small.entry, small.bytes), (512 << 10, 256 << 10));
        assert_eq!(limits_of("nonsense", "0"), Limits::default());
    }

    #[test]
    fn defaults_apply_if_the_server_does_not_report_limits() {
        assert_eq!(read_limits(&[Value::Nil, Value::Nil, Value::Nil]).unwrap(), Limits::default());
        assert_eq!(read_limits(&[]).unwrap(), Limits::default());
    }
}
