//! Turns positions into parts: in the order of the sequencer, a bounded piece at a time.

use std::cell::RefCell;
use std::ops::Range;

use pgrx::pg_sys::BuiltinOid::{INT4OID, INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;

use super::events::{self, Entries};
use super::key::Template;
use super::marker::Cursor;
use super::orgs::{Mirrored, Orgs, mirrored_positions};
use super::part::{Entry, Part};
use super::server::{Limits, MAX_EVENTS};
use crate::batch::{POSITION_COLUMNS, Position, position_columns};
use crate::error::{Error, Result, spi};
use crate::ingest;
use crate::statement::raw::{RawRow, RawStatement, View};
use crate::statement::{Statement, arg};
use crate::tier::to_postgres_time;

/// Positions looked at in one transaction.
const MAX_POSITIONS: i64 = 1_024;
/// Positions read at a time: most parts are full before.
const PAGE: i64 = 64;

thread_local! {
    static NEXT: RawStatement = const { RawStatement::new(
        concat!("SELECT ", position_columns!(), ", p.org_id, p.xid::text::bigint
                 FROM tailstream.positions p WHERE p.seq >= $1 AND p.placed_at >= $2 ORDER BY p.seq LIMIT $3"),
        &[INT8OID, TIMESTAMPTZOID, INT8OID]) };
    static OF_ORG: RawStatement = const { RawStatement::new(
        concat!("SELECT ", position_columns!(), " FROM ", mirrored_positions!(), " AND p.seq >= $2 AND p.seq < $3 ORDER BY p.seq LIMIT $4"),
        &[TEXTOID, INT8OID, INT8OID, INT8OID]) };
    static PENDING: Statement = const { Statement::new(
        "counting events",
        concat!("SELECT coalesce(sum(p.event_count - CASE WHEN p.seq = $2 THEN $3 ELSE 0 END), 0)::bigint
                 FROM ", mirrored_positions!(), " AND p.seq >= $2"),
        &[TEXTOID, INT8OID, INT4OID]) };
    /// The org whose events are being read: should that fail, it concerns this one.
    static READING: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Where reading goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    pub cursor: Cursor,
    /// Nothing at the cursor or behind was placed earlier: milliseconds since the Unix epoch.
    pub placed_ms: i64,
    /// The org of the position that the cursor stands in, if it stands in one.
    pub inside: Option<String>,
}

/// What the next part is made from.
pub struct Source<'a> {
    pub orgs: &'a mut Orgs,
    pub template: &'a Template,
    /// Orgs whose streams are made again, and so are left out.
    pub rebuilding: &'a dyn Fn(&str) -> bool,
    /// Everything up to this position is left out.
    pub after_seq: i64,
    /// The key of the registry of streams.
    pub registry: &'a str,
    pub limits: Limits,
}

/// The org that could not be read, after an error.
pub fn take_failed() -> Option<String> {
    READING.with_borrow_mut(Option::take)
}

/// The next part, and whether there may be more behind it. In a transaction with a snapshot.
pub fn next(source: &mut Source<'_>, reading: &mut Reading) -> Result<(Part, bool)> {
    let mut part = Part::default();
    let now_ms = ingest::now() / 1_000;
    for _ in 0..MAX_POSITIONS / PAGE {
        let positions = positions(reading)?;
        for (position, org, xid) in &positions {
            take(&mut part, source, reading, (position, org, *xid), now_ms)?;
            if reading.inside.is_some() || part.is_full(&source.limits) {
                part.end = reading.clone();
                return Ok((part, true));
            }
        }
        if (positions.len() as i64) < PAGE {
            part.end = reading.clone();
            return Ok((part, false));
        }
    }
    part.end = reading.clone();
    Ok((part, true))
}

/// Adds what there is room for of one position, and moves on.
fn take(
    part: &mut Part,
    source: &mut Source<'_>,
    reading: &mut Reading,
    (position, org, xid): (&Position, &str, u64),
    now_ms: i64,
) -> Result<()> {
    let from = if position.seq == reading.cursor.seq { reading.cursor.offset } else { 0 };
    let mirrored = source.orgs.get(org)?.filter(|mirrored| mirrored.includes(xid, position.ms));
    let mut stopped_at = None;
    if let Some(mirrored) = mirrored
        && position.seq > source.after_seq
        && position.events > 0
        && !(source.rebuilding)(org)
    {
        if position.ms <= now_ms - mirrored.stream_age {
            part.expired += (position.events - from) as u64;
            // A stream has no holes: what comes before what is left out goes too, so its readers can tell.
            part.trim(
                org,
                &source.template.key(org),
                position.ms,
                position.stream_seq + i64::from(position.events),
            );
        } else {
            let key = source.template.key(org);
            if let Some((ms, seq)) = source.orgs.begins(org, &mirrored, source.after_seq)? {
                part.trim(org, &key, ms, seq);
            }
            stopped_at = add(part, source, (org, &key), &mirrored, (position, from))?;
        }
    }
    reading.placed_ms = position.ms;
    reading.inside = stopped_at.map(|_| org.to_owned());
    reading.cursor = match stopped_at {
        Some(offset) => Cursor { seq: position.seq, offset },
        None => Cursor::before(position.seq + 1),
    };
    Ok(())
}

/// The next part of one org's stream made again, from the cursor up to, not including, a position; and whether nothing
/// is left behind it.
pub fn next_of(
    org: &str,
    source: &mut Source<'_>,
    cursor: &mut Cursor,
    before: i64,
    clear: bool,
) -> Result<(Part, bool)> {
    let mut part = Part::default();
    let key = source.template.key(org);
    if clear {
        source.orgs.unregister(org);
        part.clear(org, &key, source.registry);
    }
    let Some(mirrored) = source.orgs.get(org)?.filter(Mirrored::is_on) else { return Ok((part, true)) };
    if !clear {
        // What has grown too old since the last part was passed over, and what came before it is older still.
        part.trim(org, &key, ingest::now() / 1_000 - mirrored.stream_age, 0);
    }
    for _ in 0..MAX_POSITIONS / PAGE {
        let positions = of_org(org, cursor.seq, before, PAGE)?;
        for position in &positions {
            let from = if position.seq == cursor.seq { cursor.offset } else { 0 };
            let stopped_at = add(&mut part, source, (org, &key), &mirrored, (position, from))?;
            *cursor = match stopped_at {
                Some(offset) => Cursor { seq: position.seq, offset },
                None => Cursor::before(position.seq + 1),
            };
            if stopped_at.is_some() || part.is_full(&source.limits) {
                return Ok((part, false));
            }
        }
        if (positions.len() as i64) < PAGE {
            return Ok((part, true));
        }
    }
    Ok((part, false))
}

/// Adds a batch's events from an offset on, as many as there is room for; returns where it stopped if not at the end.
fn add(
    part: &mut Part,
    source: &mut Source<'_>,
    (org, key): (&str, &str),
    mirrored: &Mirrored,
    (position, from): (&Position, i32),
) -> Result<Option<i32>> {
    let room = source.limits.events.saturating_sub(part.entries).max(1) as i32;
    let mut end = position.events.min(from.saturating_add(room));
    READING.set(Some(org.to_owned()));
    let Entries { entries, oversized } = events::read(org, position, from, &mut end, source.limits.entry)?;
    READING.set(None);
    if !entries.is_empty() {
        if source.orgs.register(org) {
            part.register(key, org, source.registry);
        }
        part.add(org, key, &entries, mirrored.stream_entries);
    }
    part.oversized.extend(oversized.into_iter().map(|(id, bytes)| (org.to_owned(), id, bytes)));
    if let Some(offset) = last_missing(&entries, position, from..end) {
        part.trim(org, key, position.ms, position.stream_seq + i64::from(offset) + 1);
    }
    Ok((end < position.events).then_some(end))
}

/// The last of these offsets that has no entry: an event that was purged before it could be sent, or is too large.
fn last_missing(entries: &[Entry], position: &Position, offsets: Range<i32>) -> Option<i32> {
    let base = position.batch_id << 16;
    let mut present = entries.iter().rev().map(|entry| (entry.event_id - base) as i32).peekable();
    offsets.rev().find(|offset| present.next_if_eq(offset).is_none())
}

/// An org's mirrored positions from one on, before another.
fn of_org(org: &str, from: i64, before: i64, most: i64) -> Result<Vec<Position>> {
    let values = [org.into_datum(), from.into_datum(), before.into_datum(), most.into_datum()];
    let mut found = Vec::new();
    let take = |row: RawRow<'_>| {
        found.push(Position::of(&row));
        true
    };
    OF_ORG.with(|statement| statement.each(values, View::New, take))?;
    found.into_iter().collect()
}

fn positions(reading: &Reading) -> Result<Vec<(Position, String, u64)>> {
    let since = to_postgres_time(reading.placed_ms * 1_000);
    let values = [reading.cursor.seq.into_datum(), Some(since.into()), PAGE.into_datum()];
    let mut found = Vec::new();
    let take = |row: RawRow<'_>| {
        found.push(of_any_org(&row));
        true
    };
    NEXT.with(|statement| statement.each(values, View::New, take))?;
    found.into_iter().collect()
}

/// A row of `NEXT`.
fn of_any_org(row: &RawRow<'_>) -> Result<(Position, String, u64)> {
    let missing = || Error::Internal("a NULL in a position");
    let org = row.text(POSITION_COLUMNS).ok_or_else(missing)?;
    let xid = row.int8(POSITION_COLUMNS + 1).ok_or_else(missing)?;
    Ok((Position::of(row)?, org.to_owned(), xid as u64))
}

/// The entries that the next positions of an org should have, up to where the mirror has come. Empty at the end. Moves
/// `hole` to the stream id of the last event among them that is gone.
pub fn expected(
    org: &str,
    cursor: &mut Cursor,
    before: i64,
    sent: Cursor,
    (hole, limits): (&mut (i64, i64), &Limits),
) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    while all.len() < MAX_EVENTS {
        let Some(position) = of_org(org, cursor.seq, before, 1)?.pop() else { break };
        let from = if position.seq == cursor.seq { cursor.offset } else { 0 };
        let last = if position.seq == sent.seq { sent.offset } else { position.events };
        let mut end = last.min(from + MAX_EVENTS as i32);
        let entries = events::read(org, &position, from, &mut end, limits.entry)?.entries;
        if let Some(offset) = last_missing(&entries, &position, from..end) {
            *hole = (position.ms, position.stream_seq + i64::from(offset));
        }
        all.extend(entries);
        *cursor = if end < last {
            Cursor { seq: position.seq, offset: end }
        } else {
            Cursor::before(position.seq + 1)
        };
    }
    Ok(all)
}

/// The stream id of the event that a cursor of this org stands before.
pub fn stream_id(org: &str, cursor: Cursor) -> Result<Option<(i64, i64)>> {
    let position = of_org(org, cursor.seq, cursor.seq + 1, 1)?.pop();
    Ok(position.map(|position| (position.ms, position.stream_seq + i64::from(cursor.offset))))
}

/// Events of an org that are placed and not sent.
pub fn pending(org: &str, sent: Cursor) -> Result<i64> {
    let arguments = [arg(org.to_owned()), arg(sent.seq), arg(sent.offset)];
    Spi::connect_mut(|client| {
        let row = PENDING.with(|pending| pending.run(client, &arguments))?.first();
        row.get::<i64>(1).map_err(spi("counting events")).map(Option::unwrap_or_default)
    })
}
