//! Metadata: the members of an event that have no column.

use std::collections::HashSet;

use super::super::MAX_EVENT_BYTES;
use super::super::error::{EventError, Problem};
use super::super::json::{Audit, Key, Kind, Lexer, Token, VALUE_BYTES, refuse_duplicates};
use super::field::Field;

/// Up to here, comparing each key with each is faster than hashing them.
const FEW_PAIRS: usize = 64;

/// The members that an event's metadata will have.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    /// From the event itself: unknown keys, losing aliases, originals of inexact conversions.
    own: Vec<Member<'a>>,
    /// From the event's `metadata` object.
    given: Vec<Member<'a>>,
    /// Whether the event has a `metadata` object, be it empty.
    has_object: bool,
}

#[derive(Debug)]
struct Member<'a> {
    key: Key<'a>,
    value: &'a str,
}

impl AsRef<str> for Member<'_> {
    fn as_ref(&self) -> &str {
        &self.key.name
    }
}

impl<'a> Metadata<'a> {
    pub(super) fn clear(&mut self) {
        self.own.clear();
        self.given.clear();
        self.has_object = false;
    }

    /// Keeps a member of the event itself.
    #[inline(always)]
    pub(super) fn keep(
        &mut self,
        key: Key<'a>,
        value: Token<'a>,
        audit: &mut Audit<'a>,
    ) -> Result<(), EventError> {
        check(value, audit).map_err(|problem| problem.in_field(&key.name))?;
        let value = value.raw;
        self.own.push(Member { key, value });
        Ok(())
    }

    /// Reads the event's `metadata` object, which begins at `lexer`.
    pub(super) fn read_object(
        &mut self,
        lexer: &mut Lexer<'a>,
        audit: &mut Audit<'a>,
    ) -> Result<(), EventError> {
        self.has_object = true;
        self.read_given(lexer, audit)
            .and_then(|()| refuse_duplicates(&self.given))
            .map_err(|problem| problem.in_field(Field::Metadata.name()))
    }

    fn read_given(&mut self, lexer: &mut Lexer<'a>, audit: &mut Audit<'a>) -> Result<(), Problem> {
        lexer.advance();
        if lexer.peek() == Some(b'}') {
            lexer.advance();
            return Ok(());
        }
        loop {
            let key = lexer.key()?;
            let value = audit.value(lexer)?;
            check(value, audit)?;
            let value = value.raw;
            self.given.push(Member { key, value });
            let next = lexer.peek();
            if !matches!(next, Some(b',' | b'}')) {
                return Err(lexer.unexpected("\",\" or \"}\""));
            }
            lexer.advance();
            if next == Some(b'}') {
                return Ok(());
            }
        }
    }

    /// The text of the object; `None` if there is nothing to keep.
    pub(super) fn finish(&mut self, audit: &Audit<'a>) -> Result<Option<String>, EventError> {
        if self.own.is_empty() && !self.has_object {
            return Ok(None);
        }
        refuse_duplicates(&self.own)?;
        self.drop_overruled();
        let members = || self.given.iter().chain(&self.own);
        let length: usize = members().map(|member| member.key.raw.len() + member.value.len() + 2).sum();
        let count = self.given.len() + self.own.len();
        let bytes = length.saturating_add(audit.bytes());
        if bytes.saturating_add(count * VALUE_BYTES) > MAX_EVENT_BYTES {
            return Err(Problem::TooLarge { what: "metadata" }.in_field(Field::Metadata.name()));
        }
        let mut text = String::with_capacity(length + 2);
        let mut separator = '{';
        for member in members() {
            text.push(separator);
            text.push_str(member.key.raw);
            text.push(':');
            text.push_str(member.value);
            separator = ',';
        }
        if count == 0 {
            text.push('{');
        }
        text.push('}');
        Ok(Some(text))
    }

    /// Drops the given members whose name the event itself has as well.
    fn drop_overruled(&mut self) {
        let own = &self.own;
        if own.is_empty() || self.given.is_empty() {
            return;
        }
        if own.len() * self.given.len() <= FEW_PAIRS {
            self.given.retain(|given| own.iter().all(|own| own.key.name != given.key.name));
        } else {
            let own: HashSet<&str> = own.iter().map(AsRef::as_ref).collect();
            self.given.retain(|given| !own.contains(given.as_ref()));
        }
    }
}

/// Checks a value that metadata will hold; arrays and objects have been checked while reading.
#[inline(always)]
fn check<'a>(value: Token<'a>, audit: &mut Audit<'a>) -> Result<(), Problem> {
    match value.kind {
        Kind::Array | Kind::Object => Ok(()),
        _ => audit.scalar(value),
    }
}
