//! Where a cursor starts: a keyword, a time or a token.

use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::TEXTOID;
use pgrx::prelude::*;

use super::store::CursorState;
use crate::batch_reader::order::{self, PositionRow};
use crate::error::{Error, Result, spi};
use crate::pg::statement::{Statement, arg};
use crate::pg::time::to_unix_time;
use crate::pg::{snapshot, subtransaction};
use crate::replay::check_start;
use crate::replay::page::request::Next;
use crate::replay::page::request::{self, ALWAYS, in_range};
use crate::replay::page::rewind_check;
use crate::replay::token::{self, Place};

/// Most microseconds that an event may be ahead of the clock: the maximum of max_future_skew.
const MAX_AHEAD: i64 = 24 * 3_600 * 1_000_000;
/// Shorter than any token. A time may be longer, but then it contains a character that tokens do not contain.
const TOKEN_LENGTH: usize = 30;

thread_local! {
    static TIME: Statement = const { Statement::new("reading a time", "SELECT $1::timestamptz", &[TEXTOID]) };
}

/// A start position as given by the caller.
pub enum StartPosition<'a> {
    Text(&'a str),
    /// PostgreSQL's microseconds.
    Time(i64),
}

impl StartPosition<'_> {
    pub fn find(&self, org: &str, by_arrival: bool) -> Result<CursorState> {
        let cutoff = request::cutoff(org)?;
        // Read first: a batch that is sequenced meanwhile is after it, and must not be skipped.
        let head = head()?;
        let place = match self {
            Self::Text("beginning") if by_arrival => first(order::first_shown, org, cutoff, head)?,
            Self::Text("beginning") => before(cutoff),
            Self::Text("now") if by_arrival => head.place(),
            // SAFETY: reads the clock.
            Self::Text("now") => before(unsafe { pg_sys::GetCurrentTimestamp() }),
            Self::Text(text) if is_token(text) => return of_token(org, text, by_arrival),
            Self::Text(text) => return StartPosition::Time(time(text)?).find(org, by_arrival),
            Self::Time(time) => {
                check_start(org, Some(*time))?;
                // SAFETY: reads the clock.
                if *time > unsafe { pg_sys::GetCurrentTimestamp() }.saturating_add(MAX_AHEAD) {
                    let hint = "No event is more than a day ahead.";
                    return Err(Error::BadArgument { what: "start", value: "too far ahead".into(), hint });
                }
                if by_arrival { first(order::first_of_org, org, *time, head)? } else { before(*time) }
            }
        };
        // Earlier events that a longer retention shows again may have been purged, which is a loss.
        Ok(CursorState {
            place,
            accounted_until: cutoff,
            accounted_until_seq: head.seq,
            incarnation: request::incarnation(org)?,
        })
    }
}

fn is_token(text: &str) -> bool {
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() >= TOKEN_LENGTH && text.bytes().all(in_alphabet)
}

/// Before all events of this time.
pub fn before(time: i64) -> Place {
    Place::Time { created_at: time.saturating_sub(1), id: i64::MAX, backward: false }
}

fn time(text: &str) -> Result<i64> {
    Spi::connect(|client| {
        let row = TIME.with(|statement| statement.read(client, &[arg(text.to_owned())]))?.first();
        let time = row.get::<TimestampWithTimeZone>(1).map_err(spi("reading a time"))?;
        time.map(pg_sys::TimestampTz::from).ok_or(Error::NullArgument("start"))
    })
}

/// After all existing positions.
pub fn head() -> Result<Next> {
    let none = Next { seq: 1, offset: 0, placed_ms: 0 };
    let head = subtransaction::again_without_dropped_chunks(|| snapshot::current(order::head))?;
    Ok(head.map_or(none, |head| Next { seq: head.seq + 1, offset: 0, placed_ms: head.ms() }))
}

/// The org's first matching position, or the place after those that existed before.
fn first(
    find: fn(&str, i64) -> Result<Option<PositionRow>>,
    org: &str,
    time: i64,
    head: Next,
) -> Result<Place> {
    let time = in_range(time);
    let found = subtransaction::again_without_dropped_chunks(|| snapshot::current(|| find(org, time)))?;
    let next = found.map_or(head, |row| Next { seq: row.seq, offset: 0, placed_ms: row.ms() });
    Ok(next.place())
}

/// Events that were lost since the token was made are a loss.
fn of_token(org: &str, text: &str, by_arrival: bool) -> Result<CursorState> {
    let token = request::read_token(&token::signer(org)?, text)?;
    rewind_check::check_place(&token)?;
    let place = match (token.place, token.boundary) {
        (Place::Time { backward: true, .. }, _) => return Err(Error::OtherDirection("backward")),
        (Place::Time { .. }, _) if !by_arrival => token.place,
        (Place::Time { .. }, Some(boundary)) => {
            let placed_ms = to_unix_time(rewind_check::placed_at(boundary)?).div_euclid(1_000).max(0);
            Next { seq: boundary.seq + 1, offset: 0, placed_ms }.place()
        }
        (Place::Time { .. }, None) => return Err(Error::OtherOrder("event_time")),
        (Place::Arrival { .. }, _) if by_arrival => token.place,
        (Place::Arrival { .. }, _) => return Err(Error::OtherOrder("arrival")),
    };
    Ok(CursorState {
        place,
        accounted_until: token.accounted_until.unwrap_or(ALWAYS),
        accounted_until_seq: ALWAYS,
        incarnation: token.incarnation,
    })
}
