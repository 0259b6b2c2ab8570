//! What the Redis server is, and how much it takes at once.

use redis::Value;

use super::commands::Commands;
use super::replies::text;
use crate::error::Error;

/// XTRIM by id is younger than that.
const OLDEST: (u32, u32) = (6, 2);
/// Redis's own defaults, for a server that does not tell.
const BULK: u64 = 512 << 20;
const QUERY_BUFFER: u64 = 1 << 30;
/// Events in one transaction: Redis serves nobody else while it runs.
pub const MAX_EVENTS: usize = 1_000;
/// Bytes after which a transaction is full; one event may be larger.
pub const MAX_BYTES: usize = 1 << 20;

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an entry's JSON. Redis closes the connection on a longer one, without a word.
    pub entry: usize,
    /// Bytes after which a transaction is full.
    pub bytes: usize,
    /// Events in one transaction.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(BULK, QUERY_BUFFER)
    }
}

impl Limits {
    /// `bulk` is the longest string that the server takes, `query_buffer` the most that it keeps of a client's commands:
    /// proto-max-bulk-len and client-query-buffer-limit, in bytes.
    fn new(bulk: u64, query_buffer: u64) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            // What was queued by MULTI counts as well.
            entry: size(bulk.min(query_buffer / 2)),
            bytes: MAX_BYTES.min(size(query_buffer / 4)),
            events: MAX_EVENTS,
        }
    }
}

/// Asks for all that `read` wants to know.
pub fn questions() -> Commands {
    let mut commands = Commands::default();
    commands.command(&["INFO", "server"]).command(&["CONFIG", "GET", "proto-max-bulk-len"]).command(&[
        "CONFIG",
        "GET",
        "client-query-buffer-limit",
    ]);
    commands
}

/// What the replies to the questions say. Whatever the server does not tell is as Redis has it by default.
pub fn read(replies: &[Value]) -> Result<Limits, Error> {
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

/// The value in the reply to CONFIG GET of one name.
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
        let said = |version: &str| read(&[bulk(&format!("# Server\r\nredis_version:{version}\r\nx:1\r\n"))]);
        for version in ["6.2.0", "7.2.4", "8.0.2", "10.0.0", "unstable", "255.255.255"] {
            assert_eq!(said(version).unwrap(), Limits::default(), "{version}");
        }
        for version in ["5.0.14", "6.0.16", "2.8"] {
            let message = said(version).unwrap_err().to_string();
            assert!(message.contains("needs Redis 6.2 or later") && message.contains(version), "{message}");
        }
    }

    #[test]
    fn limits_are_what_the_server_says() {
        let asked = |bulk_limit, query| {
            read(&[
                bulk(""),
                config("proto-max-bulk-len", bulk_limit),
                config("client-query-buffer-limit", query),
            ])
            .unwrap()
        };
        assert_eq!(asked("536870912", "1073741824"), Limits::default());
        assert_eq!(asked("1048576", "1073741824").entry, 1 << 20);
        let small = asked("536870912", "1048576");
        assert_eq!((small.entry, small.bytes), (512 << 10, 256 << 10));
        assert_eq!(asked("nonsense", "0"), Limits::default());
    }

    #[test]
    fn a_server_that_does_not_tell_has_the_defaults() {
        assert_eq!(read(&[Value::Nil, Value::Nil, Value::Nil]).unwrap(), Limits::default());
        assert_eq!(read(&[]).unwrap(), Limits::default());
    }
}
