//! A JSON reader that keeps everything as it was written.
//!
//! A general parser gives values; this one gives the exact text of each value, which `metadata`
//! needs, decimal digits, which exact conversions need, and the place of every error. It reads a
//! batch once, allocates for escapes only, and needs no stack for nesting.

mod audit;
mod lexer;
mod string;

pub(super) use audit::{Audit, VALUE_BYTES, refuse_duplicates};
pub(super) use lexer::{Key, Kind, Lexer, Token};
pub(super) use string::{string_length, write_string};

#[cfg(test)]
mod tests;
