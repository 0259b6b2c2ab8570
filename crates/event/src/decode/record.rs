//! One JSON object becomes one event.

use std::borrow::Cow;

use super::super::error::{EventError, Problem, excerpt};
use super::super::inet::Inet;
use super::super::json::{Audit, Kind, Lexer, Token};
use super::super::time::{self, Clock};
use super::super::{Event, MAX_EVENT_BYTES};
use super::field::{Field, Fields, wrong_type};
use super::metadata::Metadata;

/// Reads events one after the other, reusing its memory.
pub(super) struct Reader<'a> {
    clock: Clock,
    fields: Fields<'a>,
    metadata: Metadata<'a>,
    audit: Audit<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, fields: Fields::default(), metadata: Metadata::default(), audit: Audit::default() }
    }

    /// Reads the event at `lexer`.
    pub(super) fn read(&mut self, lexer: &mut Lexer<'a>) -> Result<Event<'a>, EventError> {
        self.fields.clear();
        self.metadata.clear();
        self.audit.reset();
        if lexer.peek() != Some(b'{') {
            let found = self.audit.value(lexer)?;
            return Err(EventError::from(Problem::Shape {
                expected: "an object",
                found: excerpt(found.raw),
            }));
        }
        let start = lexer.position();
        self.read_members(lexer)?;
        if lexer.position() - start > MAX_EVENT_BYTES {
            return Err(Problem::TooLarge { what: "the event" }.into());
        }
        self.assemble()
    }

    fn read_members(&mut self, lexer: &mut Lexer<'a>) -> Result<(), EventError> {
        lexer.advance();
        if lexer.peek() == Some(b'}') {
            lexer.advance();
            return Ok(());
        }
        loop {
            let key = lexer.key()?;
            match Field::named(&key.name) {
                Some(field) => self.read_field(lexer, field)?,
                None => {
                    let value = self.audit.value(lexer);
                    let value = value.map_err(|problem| problem.in_field(&key.name))?;
                    self.metadata.keep(key, value, &mut self.audit)?;
                }
            }
            let next = lexer.peek();
            if !matches!(next, Some(b',' | b'}')) {
                return Err(lexer.unexpected("\",\" or \"}\"").into());
            }
            lexer.advance();
            if next == Some(b'}') {
                return Ok(());
            }
        }
    }

    fn read_field(&mut self, lexer: &mut Lexer<'a>, field: Field) -> Result<(), EventError> {
        let in_field = |problem: Problem| problem.in_field(field.name());
        if field == Field::Metadata && lexer.peek() == Some(b'{') {
            self.fields.claim(field)?;
            return self.metadata.read_object(lexer, &mut self.audit);
        }
        let value = self.audit.value(lexer).map_err(in_field)?;
        self.fields.set(field, value)
    }

    /// Makes an event of the members that have been read.
    fn assemble(&mut self) -> Result<Event<'a>, EventError> {
        let created_at = self.created_at()?;
        let response_time = self.response_time()?;
        let event = Event {
            created_at,
            host: self.text(Field::Host)?,
            method: self.text(Field::Method)?.unwrap_or(Cow::Borrowed("GET")),
            path: self.text(Field::Path)?.unwrap_or(Cow::Borrowed("/")),
            status: self.status()?.unwrap_or(200),
            response_time,
            response_size: self.response_size()?,
            user_agent: self.text(Field::UserAgent)?,
            referrer: self.text(Field::Referrer)?,
            ip_address: self.ip_address()?,
            metadata: None,
        };
        if let Some(value) = self.fields.take(Field::Metadata) {
            self.keep(Field::Metadata, value)?;
        }
        let metadata = self.metadata.finish(&self.audit)?;
        Ok(Event { metadata, ..event })
    }

    fn created_at(&mut self) -> Result<i64, EventError> {
        let names = [Field::CreatedAt, Field::Ts, Field::Timestamp];
        let Some((field, value)) = self.pick(&names)? else {
            return Ok(self.clock.now);
        };
        let instant = match value.kind {
            Kind::Plain => time::from_text(value.inner()),
            Kind::Integer | Kind::Decimal => time::from_number(value.raw),
            _ => match value.text() {
                Ok(Some(text)) => time::from_text(&text),
                Ok(None) => Err(wrong_type("a time as text or number", value)),
                Err(problem) => Err(problem),
            },
        };
        let instant = instant.map_err(|problem| problem.in_field(field.name()))?;
        if instant.micros > self.clock.max_future {
            let ahead = instant.micros.saturating_sub(self.clock.now);
            let problem = Problem::InFuture { value: excerpt(value.raw), ahead: time::duration(ahead) };
            return Err(problem.in_field(field.name()));
        }
        if !instant.exact {
            self.keep(field, value)?;
        }
        Ok(instant.micros)
    }

    fn response_time(&mut self) -> Result<Option<i32>, EventError> {
        let Some((field, value)) = self.pick(&[Field::ResponseTime, Field::Rt])? else {
            return Ok(None);
        };
        let shift = if field == Field::Rt { 3 } else { 0 };
        let scaled = field.scaled(value, "a number", shift)?;
        let millis = scaled
            .and_then(|scaled| i32::try_from(scaled.rounded()?).ok())
            .ok_or_else(|| field.out_of_range(value, "integer"))?;
        if !scaled.is_some_and(|scaled| scaled.is_exact()) {
            self.keep(field, value)?;
        }
        Ok(Some(millis))
    }

    fn status(&mut self) -> Result<Option<i32>, EventError> {
        let Some(value) = self.fields.take(Field::Status) else {
            return Ok(None);
        };
        let status = Field::Status.integer(value, "integer")?;
        let status = i32::try_from(status);
        let status = status.map_err(|_| Field::Status.out_of_range(value, "integer"))?;
        Ok(Some(status))
    }

    fn response_size(&mut self) -> Result<Option<i64>, EventError> {
        match self.pick(&[Field::ResponseSize, Field::Bytes])? {
            Some((field, value)) => field.integer(value, "bigint").map(Some),
            None => Ok(None),
        }
    }

    fn text(&mut self, field: Field) -> Result<Option<Cow<'a, str>>, EventError> {
        match self.fields.take(field) {
            Some(value) => field.text(value).map(Some),
            None => Ok(None),
        }
    }

    fn ip_address(&mut self) -> Result<Option<Inet>, EventError> {
        let Some((field, value)) = self.pick(&[Field::IpAddress, Field::Ip])? else {
            return Ok(None);
        };
        let text = field.text(value)?;
        let inet = Inet::parse(&text).ok_or_else(|| {
            let value = excerpt(value.raw);
            Problem::InvalidAddress { value }.in_field(field.name())
        })?;
        Ok(Some(inet))
    }

    /// The value of the first of `names` that has one; those of the others are kept in metadata.
    fn pick(&mut self, names: &[Field]) -> Result<Option<(Field, Token<'a>)>, EventError> {
        let mut winner = None;
        for &field in names {
            match (self.fields.take(field), winner) {
                (Some(value), None) => winner = Some((field, value)),
                (Some(value), Some(_)) => self.keep(field, value)?,
                (None, _) => {}
            }
        }
        Ok(winner)
    }

    fn keep(&mut self, field: Field, value: Token<'a>) -> Result<(), EventError> {
        self.metadata.keep(field.key(), value, &mut self.audit)
    }
}
