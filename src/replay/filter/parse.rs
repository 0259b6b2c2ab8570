//! Parses a filter from JSON.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Filter;
use crate::error::{Error, Result};

/// Most bytes of a filter's text.
pub const MAX_LENGTH: usize = 64 * 1024;
/// Most values of one key.
const MAX_VALUES: usize = 100;

impl Filter {
    pub fn too_long(bytes: usize) -> Error {
        refuse(format!("{bytes} bytes are too many"))
    }

    /// Parses the text of a JSON value. `null` and an empty object match all events.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_LENGTH {
            return Err(Self::too_long(text.len()));
        }
        let fields = serde_json::from_str::<Option<BTreeMap<String, &RawValue>>>(text)
            .map_err(|_| refuse(format!("expected an object, got {}", shortened(text))))?
            .unwrap_or_default();
        let mut filter = Self { text: (!fields.is_empty()).then(|| text.to_owned()), ..Self::default() };
        for (key, value) in fields {
            let value = value.get();
            match key.as_str() {
                "status" => filter.status = Some(list(&key, value, status)?),
                "method" => filter.method = Some(list(&key, value, text_of)?),
                "host" => filter.host = Some(list(&key, value, text_of)?),
                "path" => filter.path = Some(list(&key, value, text_of)?),
                // The original text, because numbers may have more digits than any Rust type.
                "metadata" if value.starts_with('{') => filter.metadata = Some(value.to_owned()),
                "metadata" => {
                    return Err(refuse(format!("\"metadata\" is no object but {}", shortened(value))));
                }
                _ => return Err(refuse(format!("unknown key \"{}\"", shortened(&key)))),
            }
        }
        Ok(filter)
    }
}

fn refuse(message: String) -> Error {
    Error::BadFilter(message)
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// One value, or an array of them.
fn list<T>(key: &str, value: &str, read: fn(&Value) -> Option<T>) -> Result<Vec<T>> {
    let refused = |value: &str| refuse(format!("\"{key}\" cannot be {}", shortened(value)));
    let values = match serde_json::from_str(value).map_err(|_| refused(value))? {
        Value::Array(values) => values,
        one => vec![one],
    };
    if values.is_empty() || values.len() > MAX_VALUES {
        return Err(refuse(format!("\"{key}\" has {} values", values.len())));
    }
    values.iter().map(|value| read(value).ok_or_else(|| refused(&value.to_string()))).collect()
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A number, or a class like "5xx".
fn status(value: &Value) -> Option<(i32, i32)> {
    if let Some(number) = value.as_i64() {
        let number = i32::try_from(number).ok()?;
        return Some((number, number));
    }
    match value.as_str()?.as_bytes() {
        [digit @ b'1'..=b'9', b'x' | b'X', b'x' | b'X'] => {
            let first = i32::from(digit - b'0') * 100;
            Some((first, first + 99))
        }
        _ => None,
    }
}
