//! Reading arrays and objects, and checking that `jsonb` will accept and keep all of them.

use std::borrow::Cow;
use std::collections::HashSet;

use super::super::MAX_DEPTH;
use super::super::error::{Problem, excerpt};
use super::super::number::numeric_digits;
use super::string::unescape;
use super::{Kind, Lexer, Token};

/// Most bytes of one value in a `jsonb` besides its characters.
///
/// With it, the limit on bytes also bounds the number of values, for which `jsonb` has limits of
/// its own.
pub(in super::super) const VALUE_BYTES: usize = 16;

/// Up to here, comparing each key with each is faster than hashing them.
const FEW_KEYS: usize = 16;

/// Checks values and adds up what they take as `jsonb`.
#[derive(Debug, Default)]
pub(in super::super) struct Audit<'a> {
    /// The keys of all open objects, innermost last.
    keys: Vec<Cow<'a, str>>,
    open: Vec<Container>,
    bytes: usize,
}

/// An array or object whose end has not been read.
#[derive(Debug, Clone, Copy)]
struct Container {
    close: u8,
    /// How many keys there were before its own.
    keys: usize,
}

impl<'a> Audit<'a> {
    /// Starts to add up anew.
    pub(in super::super) fn reset(&mut self) {
        self.bytes = 0;
    }

    /// Bytes of the values since [`reset`](Self::reset) besides their characters.
    pub(in super::super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Checks a value that is neither array nor object.
    pub(in super::super) fn scalar(&mut self, token: Token<'a>) -> Result<(), Problem> {
        let mut bytes = VALUE_BYTES;
        match token.kind {
            Kind::Integer if token.raw.len() < 100 => {}
            Kind::Integer | Kind::Decimal => {
                let digits = numeric_digits(token.raw)
                    .ok_or_else(|| Problem::OutOfRange { value: excerpt(token.raw), pg_type: "numeric" })?;
                bytes += digits;
            }
            Kind::Escaped => unescape(token.inner(), |_| ())?,
            _ => {}
        }
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Reads any value; what is inside arrays and objects is checked.
    #[inline(always)]
    pub(in super::super) fn value(&mut self, lexer: &mut Lexer<'a>) -> Result<Token<'a>, Problem> {
        match lexer.peek() {
            Some(b'{') => self.container(lexer, Kind::Object),
            Some(b'[') => self.container(lexer, Kind::Array),
            _ => lexer.scalar(),
        }
    }

    /// Reads the array or object that begins at `lexer`.
    fn container(&mut self, lexer: &mut Lexer<'a>, kind: Kind) -> Result<Token<'a>, Problem> {
        let start = lexer.position();
        self.keys.clear();
        self.open.clear();
        let mut next = lexer.peek();
        let mut first = self.enter(lexer, next)?;
        while let Some(&container) = self.open.last() {
            next = lexer.peek();
            if next == Some(container.close) {
                lexer.advance();
                self.leave(container)?;
                first = false;
                continue;
            }
            if !first {
                if next != Some(b',') {
                    return Err(lexer.unexpected(match container.close {
                        b'}' => "\",\" or \"}\"",
                        _ => "\",\" or \"]\"",
                    }));
                }
                lexer.advance();
            }
            if container.close == b'}' {
                self.keys.push(lexer.key()?.name);
            }
            next = lexer.peek();
            first = matches!(next, Some(b'{' | b'[')) && self.enter(lexer, next)?;
            if !first {
                let token = lexer.scalar()?;
                self.scalar(token)?;
            }
        }
        Ok(lexer.token_since(start, kind))
    }

    /// Takes an opening bracket; true, because nothing inside has been read yet.
    fn enter(&mut self, lexer: &mut Lexer<'a>, open: Option<u8>) -> Result<bool, Problem> {
        // The object that holds all of an event's metadata is one level more.
        if self.open.len() + 1 >= MAX_DEPTH {
            return Err(Problem::TooDeep);
        }
        lexer.advance();
        self.open
            .push(Container { close: if open == Some(b'{') { b'}' } else { b']' }, keys: self.keys.len() });
        self.bytes = self.bytes.saturating_add(VALUE_BYTES);
        Ok(true)
    }

    fn leave(&mut self, container: Container) -> Result<(), Problem> {
        let own = self.keys.get(container.keys..).unwrap_or_default();
        refuse_duplicates(own)?;
        self.bytes = self.bytes.saturating_add(own.len() * VALUE_BYTES);
        self.keys.truncate(container.keys);
        self.open.pop();
        Ok(())
    }
}

/// Fails if two of the keys of one object are the same.
pub(in super::super) fn refuse_duplicates<K: AsRef<str>>(keys: &[K]) -> Result<(), Problem> {
    let names = || keys.iter().map(AsRef::as_ref);
    let mut seen = HashSet::new();
    let twice = if keys.len() <= FEW_KEYS {
        names()
            .enumerate()
            .find(|&(at, name)| names().take(at).any(|other| other == name))
            .map(|(_, name)| name)
    } else {
        names().find(|name| !seen.insert(*name))
    };
    match twice {
        Some(name) => Err(Problem::DuplicateKey { key: excerpt(name) }),
        None => Ok(()),
    }
}
