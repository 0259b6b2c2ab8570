//! Turns positions into parts: in the order of the sequencer, a bounded piece at a time.

use std::cell::RefCell;
use std::ops::Range;

use pgrx::pg_sys::BuiltinOid::{INT8OID, TIMESTAMPTZOID};
use pgrx::{PgBuiltInOids, Spi, pg_sys};

use super::ahead::Ahead;
use super::events::{self, Entries};
use super::key::Template;
use super::marker::Cursor;
use super::orgs::{Mirrored, Orgs};
use super::part::{Entry, Oversized, Part};
use super::server::{Limits, MAX_EVENTS};
use super::window;
use crate::batch_reader::order::{self, WINDOW_UNIT};
use crate::batch_reader::{POSITION_COLUMNS, Position, position_columns};
use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::pg::streaming::{SlotRow, Visibility};
use crate::pg::time::{self, to_postgres_time, to_unix_time};
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, forward};
use crate::storage::id;

/// Positions looked at in one transaction.
const MAX_POSITIONS: i64 = 1_024;
/// Positions read at a time: most parts are full before.
const PAGE: i64 = 64;
/// Positions of one org read at a time: as many as a part of the smallest batches has.
const ORG_PAGE: usize = 1_024;
/// Pages of such looked through in one transaction, if their events are all gone.
const MAX_PAGES: usize = 4;

/// First number, from, to, limit.
const ARGUMENTS: [PgBuiltInOids; 4] = [INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID];
thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
    /// The org whose events are being read: should that fail, it concerns this one.
    static READING: RefCell<Option<(String, i64)>> = const { RefCell::new(None) };
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

/// The org that could not be read, and at which position, after an error.
pub fn take_failed() -> Option<(String, i64)> {
    READING.with_borrow_mut(Option::take)
}

/// The next part, and whether there may be more behind it. In a transaction with a snapshot.
pub fn next(source: &mut Source<'_>, reading: &mut Reading) -> Result<(Part, bool)> {
    let mut part = Part::default();
    let now_ms = time::now() / 1_000;
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
            stopped_at = add(part, source, (org, &key), &mirrored, (position, from, None))?;
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
        part.trim(org, &key, time::now() / 1_000 - mirrored.stream_age, 0);
    }
    for _ in 0..MAX_PAGES {
        let positions = window::positions(org, cursor.seq, before, ORG_PAGE)?;
        let mut ahead = Ahead::new(&positions, source.limits.entry);
        for (index, position) in positions.iter().enumerate() {
            let from = if position.seq == cursor.seq { cursor.offset } else { 0 };
            READING.set(Some((org.to_owned(), position.seq)));
            let known = ahead.take(index, MAX_EVENTS.saturating_sub(part.entries))?;
            let stopped_at = add(&mut part, source, (org, &key), &mirrored, (position, from, known))?;
            *cursor = match stopped_at {
                Some(offset) => Cursor { seq: position.seq, offset },
                None => Cursor::before(position.seq + 1),
            };
            if stopped_at.is_some() || part.is_full(&source.limits) {
                return Ok((part, false));
            }
        }
        if positions.len() < ORG_PAGE {
            return Ok((part, true));
        }
    }
    Ok((part, false))
}

/// Adds a batch's events from an offset on, as many as there is room for; returns where it stopped if not at the end.
/// `known` are all of its entries, if they were read before.
fn add(
    part: &mut Part,
    source: &mut Source<'_>,
    (org, key): (&str, &str),
    mirrored: &Mirrored,
    (position, from, known): (&Position, i32, Option<Vec<Entry>>),
) -> Result<Option<i32>> {
    let room = source.limits.events.saturating_sub(part.entries).max(1) as i32;
    let mut end = position.events.min(from.saturating_add(room));
    let known = known.filter(|_| from == 0 && end == position.events);
    READING.set(Some((org.to_owned(), position.seq)));
    let Entries { entries, oversized } = match known {
        Some(entries) => Entries { entries, oversized: Vec::new() },
        None => events::read(org, position, from, &mut end, source.limits.entry)?,
    };
    READING.set(None);
    if !entries.is_empty() {
        if source.orgs.register(org) {
            part.register(key, org, source.registry);
        }
        part.add(org, key, &entries, mirrored.stream_entries);
    }
    part.oversized.extend(oversized.into_iter().map(|(event_id, bytes)| Oversized {
        org: org.to_owned(),
        event_id,
        bytes,
        ms: position.ms,
        seq: position.stream_seq + i64::from(id::offset_of(event_id)),
    }));
    if let Some(offset) = last_missing(&entries, from..end) {
        part.trim(org, key, position.ms, position.stream_seq + i64::from(offset) + 1);
    }
    Ok((end < position.events).then_some(end))
}

/// The last of these offsets that has no entry: an event that was purged before it could be sent, or is too large.
fn last_missing(entries: &[Entry], offsets: Range<i32>) -> Option<i32> {
    let mut present = entries.iter().rev().map(|entry| id::offset_of(entry.event_id)).peekable();
    offsets.rev().find(|offset| present.next_if_eq(offset).is_none())
}

/// The next positions, in stretches of time and with one snapshot: a later one could show something behind what an earlier
/// one did not show yet.
fn positions(reading: &mut Reading) -> Result<Vec<(Position, String, u64)>> {
    snapshot::current(|| {
        // SAFETY: inside a transaction.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        if reading.placed_ms == 0 {
            let since = order::since(reading.cursor.seq)?;
            reading.placed_ms = since.map_or(0, |since| to_unix_time(since).div_euclid(1_000));
        }
        let mut found = Vec::new();
        if reading.placed_ms == 0 {
            // There is nothing before: all of it is read.
            in_stretch(reading.cursor.seq, (i64::MIN, i64::MAX), &mut found)?;
            return Ok(found);
        }
        let since = to_postgres_time(reading.placed_ms * 1_000);
        for stretch in forward(since, order::now(), WINDOW_UNIT) {
            in_stretch(reading.cursor.seq, stretch, &mut found)?;
            if found.len() as i64 >= PAGE {
                break;
            }
        }
        Ok(found)
    })
}

fn in_stretch(seq: i64, (from, to): (i64, i64), found: &mut Vec<(Position, String, u64)>) -> Result<()> {
    let left = PAGE - found.len() as i64;
    let values = [seq, from, to, left].map(|value| Some(value.into()));
    let columns = position_columns!();
    let sql = format!(
        "SELECT {columns}, p.org_id, p.xid::text::bigint FROM tailstream.positions p
         WHERE p.seq >= $1 AND p.placed_at >= $2 AND p.placed_at < $3{PLACEHOLDER} ORDER BY p.seq LIMIT $4"
    );
    let mut failed = None;
    Spi::connect_mut(|_| {
        let plan = PLANS.with(|plans| plans.get(sql, (from, to)))?;
        plan.each(values, Visibility::ActiveSnapshot, |row| {
            match of_any_org(&row) {
                Ok(position) => found.push(position),
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })
    })?;
    failed.map_or(Ok(()), Err)
}

/// A row of the query above.
fn of_any_org(row: &SlotRow<'_>) -> Result<(Position, String, u64)> {
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
    loop {
        let positions = window::positions(org, cursor.seq, before, ORG_PAGE)?;
        let mut ahead = Ahead::new(&positions, limits.entry);
        for (index, position) in positions.iter().enumerate() {
            let from = if position.seq == cursor.seq { cursor.offset } else { 0 };
            let last = if position.seq == sent.seq { sent.offset } else { position.events };
            let mut end = last.min(from + MAX_EVENTS as i32);
            let known = ahead.take(index, MAX_EVENTS)?.filter(|_| from == 0 && end == position.events);
            let entries = match known {
                Some(entries) => entries,
                None => events::read(org, position, from, &mut end, limits.entry)?.entries,
            };
            if let Some(offset) = last_missing(&entries, from..end) {
                *hole = (position.ms, position.stream_seq + i64::from(offset));
            }
            all.extend(entries);
            let is_whole = end >= last;
            *cursor = if is_whole {
                Cursor::before(position.seq + 1)
            } else {
                Cursor { seq: position.seq, offset: end }
            };
            if !is_whole || all.len() >= MAX_EVENTS {
                return Ok(all);
            }
        }
        // Of a page whose events are all gone nothing is expected, and that would mean the end.
        if positions.is_empty() || !all.is_empty() {
            return Ok(all);
        }
    }
}

/// The stream id of the event that a cursor of this org stands before.
pub fn stream_id(org: &str, cursor: Cursor) -> Result<Option<(i64, i64)>> {
    let position = window::positions(org, cursor.seq, cursor.seq + 1, 1)?.pop();
    Ok(position.map(|position| (position.ms, position.stream_seq + i64::from(cursor.offset))))
}

/// Events of an org that are placed and not sent.
pub fn pending(org: &str, sent: Cursor) -> Result<i64> {
    window::count(org, sent)
}
