//! Reads replies of Redis.

use redis::{ServerError, Value};

use crate::error::Error;

/// The message of an error, as Redis writes it.
pub fn error_text(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

/// Fails with the first reply that is an error.
pub fn first_error(replies: &[Value]) -> Result<(), Error> {
    let error = replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(Error::Redis(error_text(error))),
        _ => None,
    });
    error.map_or(Ok(()), Err)
}

/// The text of a reply; `None` if the reply is no text.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
