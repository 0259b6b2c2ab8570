//! The columns of a stored event become JSON again.

use std::fmt::{Display, Write};

use super::decode::Field;
use super::inet::Inet;
use super::json::{Audit, Key, Kind, Lexer, Token, string_length, write_string};
use super::time;

/// One stored event; `None` where a column is null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventColumns<'a> {
    /// Microseconds since the Unix epoch.
    pub created_at: i64,
    pub host: Option<&'a str>,
    pub method: Option<&'a str>,
    pub path: Option<&'a str>,
    pub status: Option<i32>,
    /// Milliseconds.
    pub response_time: Option<i32>,
    /// Bytes.
    pub response_size: Option<i64>,
    pub user_agent: Option<&'a str>,
    pub referrer: Option<&'a str>,
    pub ip_address: Option<Inet>,
    /// The text of a JSON object, as `jsonb` writes it.
    pub metadata: Option<&'a str>,
}

/// The JSON text of a stored event: canonical names in the order of the table, nulls left out, then
/// the members of its metadata.
///
/// Decoding the text gives the same columns again. Members that would be taken for something else
/// at the top level therefore come in a `metadata` object: those with the name of a column, and
/// aliases where no column has a value that wins against them.
///
/// # Example
/// ```ignore
/// let event = EventColumns { path: Some("/a"), metadata: Some(r#"{"src": "b"}"#), ..columns };
/// assert_eq!(encode(&event), r#"{"created_at":"1970-01-01T00:00:00.000000Z","path":"/a","src":"b"}"#);
/// ```
pub fn encode(event: &EventColumns<'_>) -> String {
    let text = [event.host, event.path, event.user_agent, event.metadata];
    let length: usize = text.iter().flatten().map(|text| text.len()).sum();
    let mut out = String::with_capacity(length + 256);
    out.push_str("{\"created_at\":");
    time::write_json(&mut out, event.created_at);
    push_text(&mut out, "host", event.host);
    push_text(&mut out, "method", event.method);
    push_text(&mut out, "path", event.path);
    push_number(&mut out, "status", event.status);
    push_number(&mut out, "response_time", event.response_time);
    push_number(&mut out, "response_size", event.response_size);
    push_text(&mut out, "user_agent", event.user_agent);
    push_text(&mut out, "referrer", event.referrer);
    if let Some(address) = event.ip_address {
        push_name(&mut out, "ip_address");
        let written = write!(out, "\"{address}\"");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    if let Some(metadata) = event.metadata {
        match members(metadata) {
            Some(members) => push_metadata(&mut out, event, &members),
            None => push_plain(&mut out, "metadata", Some(metadata)),
        }
    }
    out.push('}');
    out
}

/// At least how many bytes the JSON of these texts has, without writing it: what a control character takes is six times what
/// it takes as text.
pub fn encoded_length<'a>(texts: impl IntoIterator<Item = &'a str>) -> usize {
    texts.into_iter().map(string_length).sum()
}

fn push_text(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(text) = value {
        push_name(out, name);
        write_string(out, text);
    }
}

fn push_number(out: &mut String, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(number) = value {
        push_name(out, name);
        out.push_str(itoa::Buffer::new().format(number));
    }
}

fn push_name(out: &mut String, name: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
}

/// Appends a member whose value is JSON as it displays.
fn push_plain(out: &mut String, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        let written = write!(out, ",\"{name}\":{value}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
}

/// A member of the metadata.
type Member<'a> = (Key<'a>, Token<'a>);

/// The members of an object; `None` if the text is something else.
fn members(object: &str) -> Option<Vec<Member<'_>>> {
    let mut lexer = Lexer::new(object, false);
    let mut audit = Audit::default();
    let mut members = Vec::new();
    if lexer.peek() != Some(b'{') {
        return None;
    }
    lexer.advance();
    let mut next = lexer.peek();
    while next != Some(b'}') {
        let key = lexer.key().ok()?;
        members.push((key, audit.value(&mut lexer).ok()?));
        next = lexer.peek();
        match next {
            Some(b',') => lexer.advance(),
            Some(b'}') => {}
            _ => return None,
        }
    }
    Some(members)
}

fn push_metadata(out: &mut String, event: &EventColumns<'_>, members: &[Member<'_>]) {
    let mut nested = Vec::new();
    for member in members {
        if is_ambiguous(event, member) {
            nested.push(member);
        } else {
            out.push(',');
            push_member(out, member);
        }
    }
    match nested.as_slice() {
        [] if !members.is_empty() => {}
        [(key, value)] if key.name == "metadata" && is_kept_whole(*value) => {
            push_plain(out, "metadata", Some(value.raw));
        }
        nested => {
            push_plain(out, "metadata", Some('{'));
            for (at, member) in nested.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_member(out, member);
            }
            out.push('}');
        }
    }
}

fn push_member(out: &mut String, (key, value): &Member<'_>) {
    out.push_str(key.raw);
    out.push(':');
    out.push_str(value.raw);
}

/// Whether decoding keeps such a value of `metadata` under that name.
fn is_kept_whole(value: Token<'_>) -> bool {
    !matches!(value.kind, Kind::Object | Kind::Null)
}

/// Whether decoding would not keep this member if it stood at the top level.
fn is_ambiguous(event: &EventColumns<'_>, (key, value): &Member<'_>) -> bool {
    let wins = match Field::named(&key.name) {
        None => return false,
        Some(Field::Ts | Field::Timestamp) => true,
        Some(Field::Rt) => event.response_time.is_some(),
        Some(Field::Bytes) => event.response_size.is_some(),
        Some(Field::Ip) => event.ip_address.is_some(),
        Some(_) => false,
    };
    // An alias without a value counts as absent.
    !wins || value.kind == Kind::Null
}

#[cfg(test)]
mod tests;
