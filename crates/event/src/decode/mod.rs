//! A batch of JSON becomes events.

mod field;
mod metadata;
mod record;

use super::error::{EventError, Problem, excerpt};
use super::json::Lexer;
use super::time::Clock;
use super::{Event, MAX_BATCH_EVENTS};
pub(super) use field::Field;
use record::Reader;

/// How the events of a batch follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One array of objects, or one object.
    Json,
    /// One object a line; blank lines do not count.
    NdJson,
}

/// How a batch with invalid events is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// The first invalid event refuses the batch.
    Error,
    /// The others are kept, each invalid one is set aside with its reason.
    Quarantine,
}

/// A decoded batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The valid events in the order of the batch.
    pub events: Vec<Event<'a>>,
    /// The invalid ones in the order of the batch; empty with [`OnInvalid::Error`].
    pub rejected: Vec<Rejection<'a>>,
}

/// An invalid event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection<'a> {
    /// Position in the batch, from 0; valid events and invalid ones count alike.
    pub index: usize,
    /// The event as it came; of newline-delimited JSON the line without its end.
    pub raw: &'a str,
    /// The error.
    pub error: EventError,
}

/// Decodes a batch of events.
///
/// Whatever `text` holds, this neither panics nor overflows the stack, and its time and memory stay
/// in proportion to the length of `text`.
///
/// # Errors
/// With [`OnInvalid::Error`], what is wrong with the first invalid event. With either, that `text`
/// is no JSON at all or neither array nor object (each line of newline-delimited text stands for
/// itself instead), or that it has more than [`MAX_BATCH_EVENTS`] events.
///
/// # Example
/// ```ignore
/// let clock = Clock { now, max_future: now + 300_000_000 };
/// let batch = decode(Format::Json, r#"[{"path":"/a","rt":0.245}]"#, &clock, OnInvalid::Error)?;
/// assert_eq!(batch.events[0].response_time, Some(245));
/// ```
pub fn decode<'a>(
    format: Format,
    text: &'a str,
    clock: &Clock,
    on_invalid: OnInvalid,
) -> Result<Decoded<'a>, EventError> {
    let mut batch = Batch {
        lexer: Lexer::new(text, format == Format::NdJson),
        reader: Reader::new(*clock),
        on_invalid,
        index: 0,
        decoded: Decoded::default(),
    };
    match format {
        Format::Json => batch.read_json()?,
        Format::NdJson => batch.read_lines()?,
    }
    Ok(batch.decoded)
}

/// A batch that is being decoded.
struct Batch<'a> {
    lexer: Lexer<'a>,
    reader: Reader<'a>,
    on_invalid: OnInvalid,
    /// Position of the next event.
    index: usize,
    decoded: Decoded<'a>,
}

/// Most events to make room for before they are seen.
const MAX_RESERVED: usize = 16_384;

impl<'a> Batch<'a> {
    fn read_json(&mut self) -> Result<(), EventError> {
        match self.lexer.peek() {
            Some(b'[') => self.read_array()?,
            Some(b'{') => self.read_element()?,
            _ => {
                let found = self.lexer.scalar()?;
                self.expect_end()?;
                return Err(EventError::from(Problem::Shape {
                    expected: "an array of objects or one object",
                    found: excerpt(found.raw),
                }));
            }
        }
        self.expect_end()
    }

    fn read_array(&mut self) -> Result<(), EventError> {
        self.lexer.advance();
        if self.lexer.peek() == Some(b']') {
            self.lexer.advance();
            return Ok(());
        }
        loop {
            self.read_element()?;
            let next = self.lexer.peek();
            if !matches!(next, Some(b',' | b']')) {
                return Err(self.lexer.unexpected("\",\" or \"]\"").into());
            }
            self.lexer.advance();
            if next == Some(b']') {
                return Ok(());
            }
        }
    }

    fn expect_end(&mut self) -> Result<(), EventError> {
        match self.lexer.peek() {
            None => Ok(()),
            Some(_) => Err(self.lexer.unexpected("the end").into()),
        }
    }

    /// Reads one event of an array, or the only one.
    fn read_element(&mut self) -> Result<(), EventError> {
        self.expect_room()?;
        self.lexer.peek();
        let start = self.lexer.position();
        match self.reader.read(&mut self.lexer) {
            Ok(event) => {
                self.accept(start, event);
                Ok(())
            }
            Err(error) => {
                // After invalid JSON, the start of the next event is unknown.
                if matches!(error.problem, Problem::Syntax { .. }) {
                    return Err(self.locate(error));
                }
                self.lexer.seek(start);
                let raw = match self.on_invalid {
                    OnInvalid::Error => "",
                    OnInvalid::Quarantine => skip_value(&mut self.lexer)?,
                };
                self.reject(raw, error)
            }
        }
    }

    fn read_lines(&mut self) -> Result<(), EventError> {
        loop {
            self.lexer.start_line();
            let start = self.lexer.position();
            let outcome = match self.lexer.peek() {
                None => return Ok(()),
                Some(b'\n') => {
                    self.lexer.advance();
                    continue;
                }
                Some(_) => {
                    self.expect_room()?;
                    self.read_line()
                }
            };
            match outcome {
                Ok(event) => self.accept(start, event),
                Err(error) => {
                    let rest = &self.lexer.text()[start..];
                    let line = rest.split('\n').next().unwrap_or(rest);
                    self.lexer.seek(start + line.len());
                    self.reject(line.strip_suffix('\r').unwrap_or(line), error)?;
                }
            }
        }
    }

    /// Reads a line up to its end, which stays unread.
    fn read_line(&mut self) -> Result<Event<'a>, EventError> {
        let event = self.reader.read(&mut self.lexer)?;
        match self.lexer.peek() {
            None | Some(b'\n') => Ok(event),
            Some(_) => Err(self.lexer.unexpected("the end of the line").into()),
        }
    }

    fn expect_room(&self) -> Result<(), EventError> {
        if self.index < MAX_BATCH_EVENTS {
            return Ok(());
        }
        Err(Problem::TooMany.into())
    }

    fn accept(&mut self, start: usize, event: Event<'a>) {
        let length = self.lexer.position() - start;
        if self.decoded.events.is_empty() {
            let more = (self.lexer.text().len() - self.lexer.position()) / length.max(1);
            self.decoded.events.reserve(more.min(MAX_RESERVED) + 1);
        }
        self.decoded.events.push(event);
        self.index += 1;
    }

    fn reject(&mut self, raw: &'a str, error: EventError) -> Result<(), EventError> {
        let error = self.locate(error);
        if self.on_invalid == OnInvalid::Error {
            return Err(error);
        }
        self.decoded.rejected.push(Rejection { index: self.index, raw, error });
        self.index += 1;
        Ok(())
    }

    fn locate(&self, error: EventError) -> EventError {
        EventError { event: Some(self.index), ..error }
    }
}

/// Reads over a value that is no valid event, whatever its depth.
fn skip_value<'a>(lexer: &mut Lexer<'a>) -> Result<&'a str, EventError> {
    let rest = &lexer.text()[lexer.position()..];
    let mut values = serde_json::Deserializer::from_str(rest).into_iter();
    let raw: &'a serde_json::value::RawValue = match values.next() {
        Some(Ok(raw)) => raw,
        _ => {
            let end = lexer.position() + values.byte_offset();
            lexer.seek(lexer.text().floor_char_boundary(end));
            return Err(lexer.unexpected("a value").into());
        }
    };
    lexer.seek(lexer.position() + raw.get().len());
    Ok(raw.get())
}

#[cfg(test)]
mod tests;
