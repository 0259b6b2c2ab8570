//! Tokens of JSON text, in order.
//!
//! The functions that run for every token are always inlined: returning tokens through memory would take a third of the time of
//! a batch.

use std::borrow::Cow;

use super::super::error::{Problem, excerpt};
use super::string::{self, unescape};

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Null,
    Bool,
    /// A number without point and exponent.
    Integer,
    /// A number with point, exponent or both.
    Decimal,
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    Array,
    Object,
}

/// One value as it was written, strings with their quotes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Token<'a> {
    pub(in super::super) raw: &'a str,
    pub(in super::super) kind: Kind,
}

impl<'a> Token<'a> {
    /// The characters of a string, escapes resolved; `None` if the token is no string.
    pub(in super::super) fn text(self) -> Result<Option<Cow<'a, str>>, Problem> {
        match self.kind {
            Kind::Plain => Ok(Some(Cow::Borrowed(self.inner()))),
            Kind::Escaped => {
                let mut text = String::with_capacity(self.raw.len());
                unescape(self.inner(), |piece| text.push_str(piece))?;
                Ok(Some(Cow::Owned(text)))
            }
            _ => Ok(None),
        }
    }

    /// The text between the quotes of a string.
    pub(in super::super) fn inner(self) -> &'a str {
        &self.raw[1..self.raw.len() - 1]
    }
}

/// The name of a member, resolved and as it was written.
#[derive(Debug, Clone)]
pub(in super::super) struct Key<'a> {
    pub(in super::super) name: Cow<'a, str>,
    pub(in super::super) raw: &'a str,
}

impl AsRef<str> for Key<'_> {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

/// Reads the tokens of a JSON text.
#[derive(Debug, Clone)]
pub(in super::super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
    /// Whether a line feed ends the text instead of being white space.
    lines: bool,
    /// The offset from which messages count positions.
    origin: usize,
}

impl<'a> Lexer<'a> {
    /// At the beginning of `text`; with `lines`, no value reaches across a line feed.
    pub(in super::super) fn new(text: &'a str, lines: bool) -> Self {
        Self { text, position: 0, lines, origin: 0 }
    }

    /// The offset of the next byte to read.
    pub(in super::super) fn position(&self) -> usize {
        self.position
    }

    /// All of the text, read or not.
    pub(in super::super) fn text(&self) -> &'a str {
        self.text
    }

    /// Continues at another offset, which must be a character boundary.
    pub(in super::super) fn seek(&mut self, position: usize) {
        self.position = position;
    }

    /// Counts positions in messages from here.
    pub(in super::super) fn start_line(&mut self) {
        self.origin = self.position;
    }

    /// The next byte that is not white space, which stays unread.
    #[inline(always)]
    pub(in super::super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.position).copied() {
                Some(b' ' | b'\t' | b'\r') => self.position += 1,
                Some(b'\n') if !self.lines => self.position += 1,
                other => return other,
            }
        }
    }

    /// Skips the byte that [`peek`](Self::peek) has just shown.
    #[inline(always)]
    pub(in super::super) fn advance(&mut self) {
        self.position += 1;
    }

    /// Reads the name of a member and the colon after it.
    #[inline(always)]
    pub(in super::super) fn key(&mut self) -> Result<Key<'a>, Problem> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a key in quotes"));
        }
        let token = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected("\":\""));
        }
        self.advance();
        let name = token.text()?.unwrap_or_default();
        Ok(Key { name, raw: token.raw })
    }

    /// Reads a value that is neither array nor object.
    #[inline(always)]
    pub(in super::super) fn scalar(&mut self) -> Result<Token<'a>, Problem> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.literal("null", Kind::Null),
            Some(b't') => self.literal("true", Kind::Bool),
            Some(b'f') => self.literal("false", Kind::Bool),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// The text that was read since `start`.
    pub(in super::super) fn token_since(&self, start: usize, kind: Kind) -> Token<'a> {
        let raw = &self.text[start..self.position];
        Token { raw, kind }
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Result<Token<'a>, Problem> {
        let start = self.position;
        if !self.text[start..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.position += word.len();
        Ok(self.token_since(start, kind))
    }

    #[inline(always)]
    fn string(&mut self) -> Result<Token<'a>, Problem> {
        let bytes = self.text.as_bytes();
        let start = self.position;
        let mut at = start + 1;
        let mut kind = Kind::Plain;
        loop {
            at = string::next_special(bytes, at);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    let Some(length) = string::escape_length(&bytes[at..]) else {
                        self.position = at;
                        return Err(self.unexpected("a valid escape"));
                    };
                    at += length;
                }
                Some(_) => {
                    self.position = at;
                    return Err(self.syntax("control characters must be escaped in a string"));
                }
                None => {
                    self.position = bytes.len();
                    return Err(self.unexpected("the end of a string"));
                }
            }
        }
        self.position = at + 1;
        Ok(self.token_since(start, kind))
    }

    #[inline(always)]
    fn number(&mut self) -> Result<Token<'a>, Problem> {
        let start = self.position;
        let mut kind = Kind::Integer;
        if self.byte() == Some(b'-') {
            self.advance();
        }
        if self.byte() == Some(b'0') {
            self.advance();
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            kind = Kind::Decimal;
            self.advance();
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            kind = Kind::Decimal;
            self.advance();
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.advance();
            }
            self.digits()?;
        }
        Ok(self.token_since(start, kind))
    }

    #[inline(always)]
    fn digits(&mut self) -> Result<(), Problem> {
        let start = self.position;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.advance();
        }
        if self.position == start {
            return Err(self.unexpected("a digit"));
        }
        Ok(())
    }

    #[inline(always)]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    /// An error at this place, where `expected` is missing.
    #[cold]
    pub(in super::super) fn unexpected(&self, expected: &str) -> Problem {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let rest = rest.split('\n').next().unwrap_or_default();
        match rest.chars().next() {
            Some(_) => {
                let found = rest.get(..rest.floor_char_boundary(20)).unwrap_or_default();
                self.syntax(&format!("expected {expected}, found {}", excerpt(found)))
            }
            None => self.syntax(&format!("expected {expected}, found the end")),
        }
    }

    #[cold]
    fn syntax(&self, reason: &str) -> Problem {
        let read = self.text.get(self.origin..self.position);
        Problem::Syntax {
            position: read.map_or(0, |read| read.chars().count()) + 1,
            reason: reason.to_owned(),
        }
    }
}
