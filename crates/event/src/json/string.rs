//! Strings: finding their end, resolving their escapes, writing them.

use std::fmt::Write;

use super::super::error::{Problem, excerpt};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES << 7;

/// The offset, from `at` on, of the first quote, backslash or control character; the length of
/// `bytes` if there is none.
///
/// Eight bytes a step: most of a batch is inside strings.
#[inline(always)]
pub(super) fn next_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = word ^ (ONES * u64::from(b'"'));
        let quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let backslash = backslash.wrapping_sub(ONES) & !backslash;
        // A borrow can mark bytes after a true hit, never before it.
        let hits = (control | quote | backslash) & HIGHS;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    at + rest.iter().position(special).unwrap_or(rest.len())
}

/// The length of the escape that `bytes` begins with; `None` if JSON has no such escape.
pub(super) fn escape_length(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => {
            let digits = bytes.get(2..6)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(6)
        }
        _ => None,
    }
}

/// Hands out the characters of a string piece by piece, escapes resolved.
///
/// `inner` is the text between the quotes of a string with valid escapes.
pub(in super::super) fn unescape(inner: &str, mut piece: impl FnMut(&str)) -> Result<(), Problem> {
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        piece(plain);
        let (character, length) = match escape.as_bytes().first() {
            Some(b'u') => unicode(escape)?,
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b't') => ('\t', 1),
            Some(&other) => (char::from(other), 1),
            None => break,
        };
        piece(character.encode_utf8(&mut [0; 4]));
        rest = &escape[length..];
    }
    piece(rest);
    Ok(())
}

/// The character of an escape that begins with `u`, and the length of what spells it.
fn unicode(escape: &str) -> Result<(char, usize), Problem> {
    let unit = |from: usize| {
        let digits = escape.get(from..from + 4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let lone =
        || Problem::LoneSurrogate { escape: format!("\\{}", excerpt(escape.get(..5).unwrap_or(escape))) };
    let high = unit(1).ok_or_else(lone)?;
    if high == 0 {
        return Err(Problem::NulCharacter);
    }
    if let Some(character) = char::from_u32(high) {
        return Ok((character, 5));
    }
    let low = match escape.get(5..7) {
        Some("\\u") => unit(7),
        _ => None,
    };
    match (high, low) {
        (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
            let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            Ok((char::from_u32(code).ok_or_else(lone)?, 11))
        }
        _ => Err(lone()),
    }
}

/// How many bytes `write_string` appends.
pub(in super::super) fn string_length(text: &str) -> usize {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 1,
        0..0x20 => 5,
        _ => 0,
    };
    2 + text.len() + text.bytes().map(escape).sum::<usize>()
}

/// Appends `text` as a JSON string, with the shortest escape of each character: what came in as two bytes must not come
/// out as six.
pub(in super::super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    loop {
        let at = next_special(text.as_bytes(), from);
        out.push_str(&text[from..at]);
        let written = match text.as_bytes().get(at) {
            None => break,
            Some(b'"') => out.write_str("\\\""),
            Some(b'\\') => out.write_str("\\\\"),
            Some(b'\n') => out.write_str("\\n"),
            Some(b'\r') => out.write_str("\\r"),
            Some(b'\t') => out.write_str("\\t"),
            Some(8) => out.write_str("\\b"),
            Some(12) => out.write_str("\\f"),
            Some(control) => write!(out, "\\u{control:04x}"),
        };
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        from = at + 1;
    }
    out.push('"');
}
