//! `ts_replay_live`: a replay of the history that continues with the live stream; the handover delivers each event once.
//!
//! The boundary is the last existing position. Batches up to it are history; later ones come through the stream. Stream ids
//! follow positions, so one stream id separates the two, whatever the times of the events are.

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

/// The last existing position.
struct Head {
    seq: i64,
    ms: i64,
    /// The second part of the next stream id in the same millisecond.
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

    /// A stream id that is not smaller than that of any event up to here, and smaller than those of all later ones.
    fn stream_id(&self) -> String {
        match self.stream_seq.checked_sub(1) {
            Some(last @ 0..) => format!("{}-{last}", self.ms),
            // The batch was erased, and its position is kept without it.
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

/// The two parts of a stream id: milliseconds and number.
fn stream_id(text: &str) -> Result<(i64, i64)> {
    let (ms, number) = text.split_once('-').unwrap_or((text, "0"));
    let parsed = ms.parse::<u64>().ok().zip(number.parse::<u64>().ok());
    // Numbers that exceed a bigint are never assigned, and are greater than all that are.
    let clamped = |part: u64| i64::try_from(part).unwrap_or(i64::MAX);
    parsed.map(|(ms, number)| (clamped(ms), clamped(number))).ok_or_else(|| Error::BadArgument {
        what: "resume_after",
        value: quoted(Some(text)),
        hint: "It is the id of a stream's entry, like 1795245871794-0.",
    })
}

/// The org's first event with a greater stream id, or the place after the head.
fn behind(org: &str, (ms, number): (i64, i64), head: &Head) -> Result<Next> {
    // There is nothing after the head, and no time either.
    let since = from_ms(ms.min(head.ms.saturating_add(1)));
    let found = subtransaction::again_without_dropped_chunks(|| {
        snapshot::current(|| match order::coverage(since)? {
            PositionCoverage::From(oldest) if oldest.seq > 1 => Ok(None),
            _ => order::first_behind(org, since, number.saturating_add(1)).map(Some),
        })
    })?;
    Ok(match found {
        // Before the first known position: reading from there reports a gap.
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
