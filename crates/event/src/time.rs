//! The times of events: RFC 3339 text or epoch numbers in, RFC 3339 out.

use std::fmt::Write;

use speedate::{DateTime, MicrosecondsPrecisionOverflowBehavior, ParseError, TimeConfig};

use super::error::{Problem, excerpt};
use super::number::Scaled;

/// The earliest instant that a `timestamptz` holds, 4714-11-24 BC, in microseconds since 1970.
///
/// The latest one is `i64::MAX`: the end of `timestamptz`, 294276-12-31, lies thirty years behind
/// what 64 bits of microseconds since 1970 reach.
pub const MIN_CREATED_AT: i64 = -210_866_803_200_000_000;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Numbers below this are seconds, others milliseconds: the year 5138 in seconds, 1973 in
/// milliseconds.
const FIRST_MILLISECONDS: u64 = 100_000_000_000;

/// Digits after the sixth are cut off, so that no event moves into the future.
const TIME_CONFIG: TimeConfig = TimeConfig {
    microseconds_precision_overflow_behavior: MicrosecondsPrecisionOverflowBehavior::Truncate,
    unix_timestamp_offset: None,
};

/// The time that the events of a batch are compared with, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// When the batch arrived: the time of events that name none.
    pub now: i64,
    /// The latest time that an event may have.
    pub max_future: i64,
}

/// An instant read from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instant {
    /// Microseconds since the Unix epoch.
    pub(super) micros: i64,
    /// Whether that is all that the event said, or only the microseconds of it.
    pub(super) exact: bool,
}

/// Reads RFC 3339 with any offset; without offset it is UTC.
pub(super) fn from_text(text: &str) -> Result<Instant, Problem> {
    let time = DateTime::parse_bytes_rfc3339_with_config(text.as_bytes(), &TIME_CONFIG)
        .map_err(|error| text_problem(text, &error))?;
    if time.date.year == 0 {
        return Err(Problem::TimeOutOfRange { value: quoted(text), reason: "there is no year 0".to_owned() });
    }
    let seconds = time.timestamp_tz() * MICROS_PER_SECOND;
    Ok(Instant { micros: seconds + i64::from(time.time.microsecond), exact: !has_more_than_micros(text) })
}

/// Reads seconds or milliseconds since the Unix epoch from a JSON number.
pub(super) fn from_number(number: &str) -> Result<Instant, Problem> {
    let seconds = Scaled::parse(number, 0).is_some_and(|scaled| scaled.magnitude() < FIRST_MILLISECONDS);
    let scaled = Scaled::parse(number, if seconds { 6 } else { 3 });
    let micros = scaled.and_then(Scaled::floored);
    match (scaled, micros) {
        (Some(scaled), Some(micros)) if micros >= MIN_CREATED_AT => {
            Ok(Instant { micros, exact: scaled.is_exact() })
        }
        _ => Err(Problem::TimeOutOfRange {
            value: excerpt(number),
            reason: "a timestamp has no room for it".to_owned(),
        }),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", excerpt(text))
}

fn text_problem(text: &str, error: &ParseError) -> Problem {
    let out_of_range = match error {
        ParseError::OutOfRangeMonth => Some("a month is 1 to 12"),
        ParseError::OutOfRangeDay => Some("the month has no such day"),
        ParseError::OutOfRangeHour => Some("an hour is 0 to 23"),
        ParseError::OutOfRangeMinute => Some("a minute is 0 to 59"),
        ParseError::OutOfRangeSecond => Some("a second is 0 to 59"),
        ParseError::OutOfRangeTz | ParseError::OutOfRangeTzMinute => {
            Some("an offset is less than 24 hours, and its minutes are 0 to 59")
        }
        _ => None,
    };
    let value = quoted(text);
    if let Some(reason) = out_of_range {
        let reason = reason.to_owned();
        return Problem::TimeOutOfRange { value, reason };
    }
    let reason = match error {
        ParseError::TooShort => "it is too short".to_owned(),
        ParseError::ExtraCharacters => "more text follows the time".to_owned(),
        ParseError::InvalidCharDateTimeSep => "a time of day must follow the date".to_owned(),
        // The rest carry their meaning in their name only, such as `invalid_char_month`.
        other => other.to_string().replace("_char_", " ").replace('_', " "),
    };
    Problem::InvalidTime { value, reason }
}

/// Whether digits other than zero follow the microseconds of a valid time.
fn has_more_than_micros(text: &str) -> bool {
    const BEHIND_MICROS: usize = "2024-03-15T10:30:45.123456".len();
    let digits = text.bytes().skip(BEHIND_MICROS);
    let is_fraction = matches!(text.as_bytes().get(19), Some(b'.' | b','))
        && text.bytes().skip(20).take(6).all(|b| b.is_ascii_digit());
    is_fraction && digits.take_while(u8::is_ascii_digit).any(|digit| digit != b'0')
}

/// Appends the JSON of an instant: RFC 3339 in UTC with six digits, or milliseconds as a number
/// where RFC 3339 has no year for it.
pub(super) fn write_json(out: &mut String, micros: i64) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    let fraction = micros.rem_euclid(MICROS_PER_SECOND);
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    let written = if (1..=9999).contains(&year) {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let parts = [
            (year, 4, '-'),
            (month, 2, '-'),
            (day, 2, 'T'),
            (hour, 2, ':'),
            (minute, 2, ':'),
            (second, 2, '.'),
        ];
        out.push('"');
        for (number, digits, behind) in parts {
            push_digits(out, number, digits);
            out.push(behind);
        }
        push_digits(out, fraction, 6);
        out.push_str("Z\"");
        Ok(())
    } else {
        let sign = if micros < 0 { "-" } else { "" };
        let size = micros.unsigned_abs();
        write!(out, "{sign}{}.{:03}", size / 1000, size % 1000)
    };
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
}

/// Appends a number that is not negative with so many digits, up to six: `{:02}` and the like take four times as long.
fn push_digits(out: &mut String, number: i64, digits: u32) {
    for place in (0..digits).rev() {
        let digit = number / 10_i64.pow(place) % 10;
        out.push(char::from(b'0' + digit as u8));
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Counts in eras of 400 years that begin in March, so that the leap day comes last.
fn civil(day: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    let day = day + 719_468;
    let era = day.div_euclid(DAYS_PER_ERA);
    let of_era = day.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_month)
}

/// A duration for people: its two largest units.
pub(super) fn duration(micros: i64) -> String {
    const UNITS: [(i64, &str); 5] =
        [(365 * SECONDS_PER_DAY, "y"), (SECONDS_PER_DAY, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = micros / MICROS_PER_SECOND;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{} {unit}", rest / size));
            rest %= size;
        }
    }
    if parts.is_empty() {
        return "less than 1 s".to_owned();
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests;
