//! The names that mean something, and the conversion of their values.

use std::borrow::Cow;

use super::super::error::{EventError, Problem, excerpt};
use super::super::json::{Key, Kind, Token};
use super::super::number::Scaled;

/// A key that belongs to a column: its canonical name or an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Field {
    CreatedAt,
    Ts,
    Timestamp,
    Host,
    Method,
    Path,
    Status,
    ResponseTime,
    Rt,
    ResponseSize,
    Bytes,
    UserAgent,
    Referrer,
    IpAddress,
    Ip,
    Metadata,
}

/// How many fields there are.
const FIELDS: usize = Field::Metadata as usize + 1;

impl Field {
    /// The field of this name.
    #[inline(always)]
    pub(in super::super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "created_at" => Self::CreatedAt,
            "ts" => Self::Ts,
            "timestamp" => Self::Timestamp,
            "host" => Self::Host,
            "method" => Self::Method,
            "path" => Self::Path,
            "status" => Self::Status,
            "response_time" => Self::ResponseTime,
            "rt" => Self::Rt,
            "response_size" => Self::ResponseSize,
            "bytes" => Self::Bytes,
            "user_agent" => Self::UserAgent,
            "referrer" => Self::Referrer,
            "ip_address" => Self::IpAddress,
            "ip" => Self::Ip,
            "metadata" => Self::Metadata,
            _ => return None,
        })
    }

    /// The name in quotes: the key under which metadata keeps a value of this field.
    fn quoted(self) -> &'static str {
        match self {
            Self::CreatedAt => "\"created_at\"",
            Self::Ts => "\"ts\"",
            Self::Timestamp => "\"timestamp\"",
            Self::Host => "\"host\"",
            Self::Method => "\"method\"",
            Self::Path => "\"path\"",
            Self::Status => "\"status\"",
            Self::ResponseTime => "\"response_time\"",
            Self::Rt => "\"rt\"",
            Self::ResponseSize => "\"response_size\"",
            Self::Bytes => "\"bytes\"",
            Self::UserAgent => "\"user_agent\"",
            Self::Referrer => "\"referrer\"",
            Self::IpAddress => "\"ip_address\"",
            Self::Ip => "\"ip\"",
            Self::Metadata => "\"metadata\"",
        }
    }

    /// The name as senders write it.
    pub(super) fn name(self) -> &'static str {
        self.quoted().trim_matches('"')
    }

    /// The name as a member's key.
    pub(super) fn key(self) -> Key<'static> {
        Key { name: Cow::Borrowed(self.name()), raw: self.quoted() }
    }

    /// The text of a string.
    #[inline(always)]
    pub(super) fn text<'a>(self, value: Token<'a>) -> Result<Cow<'a, str>, EventError> {
        let text = value.text();
        let text = text.map_err(|problem| problem.in_field(self.name()))?;
        text.ok_or_else(|| wrong_type("a string", value).in_field(self.name()))
    }

    /// The digits of a number times `10^shift`; `None` if they have no room in 64 bits.
    pub(super) fn scaled(
        self,
        value: Token<'_>,
        expected: &'static str,
        shift: i64,
    ) -> Result<Option<Scaled>, EventError> {
        match value.kind {
            Kind::Integer | Kind::Decimal => Ok(Scaled::parse(value.raw, shift)),
            _ => Err(wrong_type(expected, value).in_field(self.name())),
        }
    }

    /// A number that is an integer, however it is written.
    #[inline(always)]
    pub(super) fn integer(self, value: Token<'_>, pg_type: &'static str) -> Result<i64, EventError> {
        if value.kind == Kind::Integer
            && let Ok(integer) = value.raw.parse()
        {
            return Ok(integer);
        }
        let scaled = self.scaled(value, "an integer", 0)?;
        let scaled = scaled.ok_or_else(|| self.out_of_range(value, pg_type))?;
        if !scaled.is_exact() {
            return Err(wrong_type("an integer", value).in_field(self.name()));
        }
        let integer = scaled.rounded();
        integer.ok_or_else(|| self.out_of_range(value, pg_type))
    }

    /// The error for a number that the column cannot hold.
    pub(super) fn out_of_range(self, value: Token<'_>, pg_type: &'static str) -> EventError {
        let value = excerpt(value.raw);
        Problem::OutOfRange { value, pg_type }.in_field(self.name())
    }
}

/// The values of one event's fields.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    values: [Option<Token<'a>>; FIELDS],
    /// One bit for each field that the event has, with a null or without.
    seen: u32,
}

impl<'a> Fields<'a> {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes note that the event has this field.
    #[inline(always)]
    pub(super) fn claim(&mut self, field: Field) -> Result<(), EventError> {
        let bit = 1 << field as u32;
        if self.seen & bit != 0 {
            let key = field.name().to_owned();
            return Err(Problem::DuplicateKey { key }.in_field(field.name()));
        }
        self.seen |= bit;
        Ok(())
    }

    /// Sets a field; null is the same as absent.
    #[inline(always)]
    pub(super) fn set(&mut self, field: Field, value: Token<'a>) -> Result<(), EventError> {
        self.claim(field)?;
        if value.kind != Kind::Null {
            self.values[field as usize] = Some(value);
        }
        Ok(())
    }

    /// The value of a field, once.
    #[inline(always)]
    pub(super) fn take(&mut self, field: Field) -> Option<Token<'a>> {
        self.values[field as usize].take()
    }
}

/// The error for a value of the wrong JSON type.
pub(super) fn wrong_type(expected: &'static str, found: Token<'_>) -> Problem {
    Problem::WrongType { expected, found: excerpt(found.raw) }
}
