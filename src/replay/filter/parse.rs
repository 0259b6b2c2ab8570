//! A filter from its JSON.

use serde_json::{Map, Value};

use super::Filter;
use crate::error::{Error, Result};

/// Values that one key may list.
const MAX_VALUES: usize = 100;

impl Filter {
    /// From the text of a JSON value; `null` and an empty object want everything.
    pub fn parse(text: &str) -> Result<Self> {
        let value = serde_json::from_str::<Value>(text).map_err(|error| refuse(error.to_string()))?;
        let fields = match value {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            other => return Err(refuse(format!("expected an object, got {}", kind(&other)))),
        };
        let mut filter = Self { text: (!fields.is_empty()).then(|| text.to_owned()), ..Self::default() };
        for (key, value) in fields {
            match key.as_str() {
                "status" => filter.status = Some(list(&key, &value, status)?),
                "method" => filter.method = Some(list(&key, &value, text_of)?),
                "host" => filter.host = Some(list(&key, &value, text_of)?),
                "path" => filter.path = Some(list(&key, &value, text_of)?),
                "metadata" if value.is_object() => filter.metadata = Some(value.to_string()),
                "metadata" => return Err(refuse(format!("\"metadata\" is {} and no object", kind(&value)))),
                _ => {
                    return Err(refuse(format!(
                        "unknown key \"{}\"",
                        key.chars().take(80).collect::<String>()
                    )));
                }
            }
        }
        Ok(filter)
    }
}

fn refuse(message: String) -> Error {
    Error::BadFilter(message)
}

/// One value, or an array of them.
fn list<T>(key: &str, value: &Value, read: fn(&Value) -> Option<T>) -> Result<Vec<T>> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    if values.is_empty() || values.len() > MAX_VALUES {
        return Err(refuse(format!("\"{key}\" has {} values", values.len())));
    }
    let shorten = |value: &Value| value.to_string().chars().take(80).collect::<String>();
    let read = |value| read(value).ok_or_else(|| refuse(format!("\"{key}\" cannot be {}", shorten(value))));
    values.iter().map(read).collect()
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

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
