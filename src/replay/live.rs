//! `ts_replay_live`: a replay of the history that continues with the live stream; the handover delivers each event once.
//!
//! The boundary is the last position there is. What has a place up to it is history, what gets one later comes by the
//! stream, and stream ids follow positions: so one id separates the two, whatever the times of events.

use pgrx::pg_sys::BuiltinOid::TEXTOID;
use pgrx::prelude::*;

use super::check_start;
use super::cursor::start_position::before;
use super::page::gap::from_ms;
use super::page::quoted;
use super::page::request::Next;
use super::page::request::{cutoff, in_range, incarnation};
use super::token::{self, Boundary, Token};
use crate::batch_reader::order::{self, PositionCoverage};
use crate::error::{Error, Result, report};
use crate::metrics;
use crate::mirror;
use crate::pg::statement::{Statement, arg};
use crate::pg::{snapshot, subtransaction};
use crate::session::org_scope;

thread_local! {
    static MIRRORED: Statement = const { Statement::new(
        "looking for an org's stream",
        "SELECT 1::bigint FROM tailstream.orgs o WHERE o.org_id = $1 AND o.mirrored", &[TEXTOID]) };
}

/// The last position there is.
struct Head {
    seq: i64,
    ms: i64,
    /// The second part of the next stream id in that millisecond.
    stream_seq: i64,
}

impl Head {
    fn find() -> Result<Self> {
        let found = subtransaction::again_without_dropped_chunks(|| snapshot::current(order::head))?;
        Ok(found.map_or(Self { seq: 0, ms: 0, stream_seq: 1 }, |head| Self {
            seq: head.seq,
            ms: head.ms(),
            stream_seq: head.stream_seq + head.events,
        }))
    }

    /// Not smaller than the stream id of any event placed up to here, and smaller than those of all others.
    fn stream_id(&self) -> String {
        match self.stream_seq.checked_sub(1) {
            Some(last @ 0..) => format!("{}-{last}", self.ms),
            // The batch has gone since and left its place.
            _ => format!("{}-{}", self.ms - 1, u64::MAX),
        }
    }
}

/// `ts_replay_live(org text, start_time timestamptz, resume_after text)`
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn ts_replay_live(
    org: Option<&str>,
    start_time: Option<TimestampWithTimeZone>,
    resume_after: Option<&str>,
) -> TableIterator<
    'static,
    (name!(cursor, String), name!(stream_key, Option<String>), name!(stream_id, String)),
> {
    let start = start_time.map(pg_sys::TimestampTz::from);
    TableIterator::once(report(org_scope::permitted_org(org).and_then(|org| open(org, start, resume_after))))
}

fn open(
    org: &str,
    start: Option<i64>,
    resume_after: Option<&str>,
) -> Result<(String, Option<String>, String)> {
    metrics::workers_here()?;
    check_start(org, start)?;
    let head = Head::find()?;
    let place = match resume_after {
        Some(_) if start.is_some() => {
            let hint = "Give start_time or resume_after, not both.";
            return Err(Error::BadArgument { what: "resume_after", value: quoted(resume_after), hint });
        }
        Some(id) => behind(org, stream_id(id)?, &head)?.place(),
        None => before(in_range(start.unwrap_or(cutoff(org)?))),
    };
    let token =
        Token { boundary: Some(Boundary::new(head.seq, head.ms)), ..Token::at(place, incarnation(org)?) };
    let cursor = token::signer(org)?.text(&token);
    Ok((cursor, stream_key(org)?, head.stream_id()))
}

/// Milliseconds and number.
fn stream_id(text: &str) -> Result<(i64, i64)> {
    let (ms, number) = text.split_once('-').unwrap_or((text, "0"));
    let parsed = ms.parse::<u64>().ok().zip(number.parse::<u64>().ok());
    // Greater ones than PostgreSQL's bigint are never given, and stand behind all that are.
    let clamped = |part: u64| i64::try_from(part).unwrap_or(i64::MAX);
    parsed.map(|(ms, number)| (clamped(ms), clamped(number))).ok_or_else(|| Error::BadArgument {
        what: "resume_after",
        value: quoted(Some(text)),
        hint: "It is the id of a stream's entry, like 1795245871794-0.",
    })
}

/// The org's first event whose stream id is greater, or what comes behind the head.
fn behind(org: &str, (ms, number): (i64, i64), head: &Head) -> Result<Next> {
    // Beyond the head there is nothing, and no time either.
    let since = from_ms(ms.min(head.ms.saturating_add(1)));
    let found = subtransaction::again_without_dropped_chunks(|| {
        snapshot::current(|| match order::coverage(since)? {
            PositionCoverage::From(oldest) if oldest.seq > 1 => Ok(None),
            _ => order::first_behind(org, since, number.saturating_add(1)).map(Some),
        })
    })?;
    Ok(match found {
        // Before what is known: reading from there tells so.
        None => Next { seq: 0, offset: 0, placed_ms: ms.max(0) },
        Some(Some(found)) => {
            let passed =
                if found.placed_at == since { number.saturating_add(1) - found.stream_seq } else { 0 };
            Next { seq: found.seq, offset: passed.max(0) as i32, placed_ms: found.ms() }
        }
        Some(None) => Next { seq: head.seq + 1, offset: 0, placed_ms: head.ms },
    })
}

/// The key of the org's stream, if it has one.
fn stream_key(org: &str) -> Result<Option<String>> {
    let is_mirrored =
        mirror::is_on() && MIRRORED.with(|query| query.first_numbers::<1>(&[arg(org.to_owned())]))?.is_some();
    is_mirrored.then(|| mirror::stream_key_of(org)).transpose()
}
