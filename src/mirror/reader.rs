//! Reads the next batches in commit order and turns them into Redis transactions of limited size.

use std::cell::RefCell;
use std::ops::Range;

use pgrx::pg_sys::BuiltinOid::{INT8OID, TIMESTAMPTZOID};
use pgrx::{PgBuiltInOids, Spi, pg_sys};

use super::entry::{Entry, Oversized};
use super::events::{self, Entries};
use super::key::Template;
use super::orgs::{Mirrored, Orgs};
use super::position::{EventPosition, ReadPosition};
use super::read_ahead::ReadAhead;
use super::redis_transaction::RedisTransaction;
use super::server::{Limits, MAX_EVENTS};
use super::stream_contents;
use crate::batch_reader::order::{self, WINDOW_UNIT};
use crate::batch_reader::{POSITION_COLUMNS, Position, position_columns};
use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::pg::streaming::{SlotRow, Visibility};
use crate::pg::time::{self, to_postgres_time, to_unix_time};
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, forward};
use crate::storage::id;

/// The number of positions that are read in one database transaction.
const MAX_POSITIONS: i64 = 1_024;
/// The number of positions that are read at a time. Most Redis transactions are full before that.
const PAGE: i64 = 64;
/// The number of positions of one org that are read at a time: as many as fit into one Redis transaction if batches
/// have one event each.
const ORG_PAGE: usize = 1_024;
/// The number of such pages that are read in one database transaction if none of their events exist any more.
const MAX_PAGES: usize = 4;

/// First sequence number, start and end of the time window, limit.
const ARGUMENTS: [PgBuiltInOids; 4] = [INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID];
thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
    /// The org and the position whose events are being read, so that an error can be attributed to the org.
    static BEING_READ: RefCell<Option<(String, i64)>> = const { RefCell::new(None) };
}

/// The input of the next Redis transaction.
pub struct Source<'a> {
    pub orgs: &'a mut Orgs,
    pub template: &'a Template,
    /// Whether an org is being resynced. The backlog skips such orgs.
    pub is_resyncing: &'a dyn Fn(&str) -> bool,
    /// Positions up to this one are skipped.
    pub after_seq: i64,
    /// The key of the registry of streams.
    pub registry: &'a str,
    pub limits: Limits,
}

/// After an error: the org and the position whose events could not be read, if that was the cause.
pub fn take_failed_read() -> Option<(String, i64)> {
    BEING_READ.with_borrow_mut(Option::take)
}

/// Returns the next Redis transaction of the backlog, and whether there may be more to read after it. Requires a
/// database transaction with a snapshot.
pub fn next_transaction(
    source: &mut Source<'_>,
    read_position: &mut ReadPosition,
) -> Result<(RedisTransaction, bool)> {
    let mut transaction = RedisTransaction::default();
    let now_ms = time::now() / 1_000;
    for _ in 0..MAX_POSITIONS / PAGE {
        let positions = positions(read_position)?;
        for (position, org, xid) in &positions {
            add_position(&mut transaction, source, read_position, (position, org, *xid), now_ms)?;
            if read_position.inside.is_some() || transaction.is_full(&source.limits) {
                transaction.end = read_position.clone();
                return Ok((transaction, true));
            }
        }
        if (positions.len() as i64) < PAGE {
            transaction.end = read_position.clone();
            return Ok((transaction, false));
        }
    }
    transaction.end = read_position.clone();
    Ok((transaction, true))
}

/// Adds as many events of one position as there is room for, and advances `read_position`.
fn add_position(
    transaction: &mut RedisTransaction,
    source: &mut Source<'_>,
    read_position: &mut ReadPosition,
    (position, org, xid): (&Position, &str, u64),
    now_ms: i64,
) -> Result<()> {
    let from = if position.seq == read_position.next.seq { read_position.next.offset } else { 0 };
    let mirrored = source.orgs.get(org)?.filter(|mirrored| mirrored.includes(xid, position.ms));
    let mut stopped_at = None;
    if let Some(mirrored) = mirrored
        && position.seq > source.after_seq
        && position.events > 0
        && !(source.is_resyncing)(org)
    {
        if position.ms <= now_ms - mirrored.stream_age {
            transaction.expired += (position.events - from) as u64;
            // A stream has no holes: the entries before the skipped events are removed too, so that readers can detect
            // the loss.
            transaction.trim(
                org,
                &source.template.key(org),
                position.ms,
                position.stream_seq + i64::from(position.events),
            );
        } else {
            let key = source.template.key(org);
            if let Some((ms, seq)) = source.orgs.trim_before(org, &mirrored, source.after_seq)? {
                transaction.trim(org, &key, ms, seq);
            }
            stopped_at = add_events(transaction, source, (org, &key), &mirrored, (position, from, None))?;
        }
    }
    read_position.placed_ms = position.ms;
    read_position.inside = stopped_at.map(|_| org.to_owned());
    read_position.next = match stopped_at {
        Some(offset) => EventPosition { seq: position.seq, offset },
        None => EventPosition::before(position.seq + 1),
    };
    Ok(())
}

/// Returns the next Redis transaction of the resync of one org, and whether it is the last one. It starts at `next`,
/// which it advances, and ends before the position `before`. `clear` removes the old stream first.
pub fn next_resync_transaction(
    org: &str,
    source: &mut Source<'_>,
    next: &mut EventPosition,
    before: i64,
    clear: bool,
) -> Result<(RedisTransaction, bool)> {
    let mut transaction = RedisTransaction::default();
    let key = source.template.key(org);
    if clear {
        source.orgs.unregister(org);
        transaction.clear(org, &key, source.registry);
    }
    let Some(mirrored) = source.orgs.get(org)?.filter(Mirrored::is_on) else {
        return Ok((transaction, true));
    };
    if !clear {
        // Since the last transaction, events may have become too old and may have been skipped. Entries before them are
        // older still.
        transaction.trim(org, &key, time::now() / 1_000 - mirrored.stream_age, 0);
    }
    for _ in 0..MAX_PAGES {
        let positions = stream_contents::positions(org, next.seq, before, ORG_PAGE)?;
        let mut ahead = ReadAhead::new(&positions, source.limits.entry);
        for (index, position) in positions.iter().enumerate() {
            let from = if position.seq == next.seq { next.offset } else { 0 };
            BEING_READ.set(Some((org.to_owned(), position.seq)));
            let read_ahead = ahead.take(index, MAX_EVENTS.saturating_sub(transaction.entries))?;
            let stopped_at =
                add_events(&mut transaction, source, (org, &key), &mirrored, (position, from, read_ahead))?;
            *next = match stopped_at {
                Some(offset) => EventPosition { seq: position.seq, offset },
                None => EventPosition::before(position.seq + 1),
            };
            if stopped_at.is_some() || transaction.is_full(&source.limits) {
                return Ok((transaction, false));
            }
        }
        if positions.len() < ORG_PAGE {
            return Ok((transaction, true));
        }
    }
    Ok((transaction, false))
}

/// Adds the events of a batch from offset `from` on, as many as there is room for. Returns the offset at which it
/// stopped, or `None` if it reached the end of the batch. `read_ahead` are all entries of the batch, if they were read
/// ahead.
fn add_events(
    transaction: &mut RedisTransaction,
    source: &mut Source<'_>,
    (org, key): (&str, &str),
    mirrored: &Mirrored,
    (position, from, read_ahead): (&Position, i32, Option<Vec<Entry>>),
) -> Result<Option<i32>> {
    let room = source.limits.events.saturating_sub(transaction.entries).max(1) as i32;
    let mut end = position.events.min(from.saturating_add(room));
    let read_ahead = read_ahead.filter(|_| from == 0 && end == position.events);
    BEING_READ.set(Some((org.to_owned(), position.seq)));
    let Entries { entries, oversized } = match read_ahead {
        Some(entries) => Entries { entries, oversized: Vec::new() },
        None => events::read(org, position, from, &mut end, source.limits.entry)?,
    };
    BEING_READ.set(None);
    if !entries.is_empty() {
        if source.orgs.register(org) {
            transaction.register(key, org, source.registry);
        }
        transaction.add(org, key, &entries, mirrored.stream_entries);
    }
    transaction.oversized.extend(oversized.into_iter().map(|(event_id, bytes)| Oversized {
        org: org.to_owned(),
        event_id,
        bytes,
        ms: position.ms,
        seq: position.stream_seq + i64::from(id::offset_of(event_id)),
    }));
    if let Some(offset) = last_missing(&entries, from..end) {
        transaction.trim(org, key, position.ms, position.stream_seq + i64::from(offset) + 1);
    }
    Ok((end < position.events).then_some(end))
}

/// The last of these offsets without an entry. Its event was purged before it could be sent, or is too large.
fn last_missing(entries: &[Entry], offsets: Range<i32>) -> Option<i32> {
    let mut present = entries.iter().rev().map(|entry| id::offset_of(entry.event_id)).peekable();
    offsets.rev().find(|offset| present.next_if_eq(offset).is_none())
}

/// The next positions. All time windows are read with one snapshot: with a later one, a window could show a position
/// that follows one which an earlier window did not show yet.
fn positions(read_position: &mut ReadPosition) -> Result<Vec<(Position, String, u64)>> {
    snapshot::current(|| {
        // SAFETY: inside a transaction.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        if read_position.placed_ms == 0 {
            let since = order::since(read_position.next.seq)?;
            read_position.placed_ms = since.map_or(0, |since| to_unix_time(since).div_euclid(1_000));
        }
        let mut found = Vec::new();
        if read_position.placed_ms == 0 {
            // No position precedes this one, so there is no lower bound for the time, and all times are read.
            in_window(read_position.next.seq, (i64::MIN, i64::MAX), &mut found)?;
            return Ok(found);
        }
        let since = to_postgres_time(read_position.placed_ms * 1_000);
        for window in forward(since, order::now(), WINDOW_UNIT) {
            in_window(read_position.next.seq, window, &mut found)?;
            if found.len() as i64 >= PAGE {
                break;
            }
        }
        Ok(found)
    })
}

fn in_window(seq: i64, (from, to): (i64, i64), found: &mut Vec<(Position, String, u64)>) -> Result<()> {
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

/// Reads a row of the query above: position, org, transaction id.
fn of_any_org(row: &SlotRow<'_>) -> Result<(Position, String, u64)> {
    let missing = || Error::Internal("a NULL in a position");
    let org = row.text(POSITION_COLUMNS).ok_or_else(missing)?;
    let xid = row.int8(POSITION_COLUMNS + 1).ok_or_else(missing)?;
    Ok((Position::of(row)?, org.to_owned(), xid as u64))
}

/// The entries that the stream of an org should have from `next` on, up to `sent`, the position of the mirror, and
/// before the position `before`. Returns up to about `MAX_EVENTS` entries and advances `next`; the result is empty at
/// the end. Sets `hole` to the stream id of the last event in this range that no longer exists.
pub fn expected_entries(
    org: &str,
    next: &mut EventPosition,
    before: i64,
    sent: EventPosition,
    (hole, limits): (&mut (i64, i64), &Limits),
) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    loop {
        let positions = stream_contents::positions(org, next.seq, before, ORG_PAGE)?;
        let mut ahead = ReadAhead::new(&positions, limits.entry);
        for (index, position) in positions.iter().enumerate() {
            let from = if position.seq == next.seq { next.offset } else { 0 };
            let last = if position.seq == sent.seq { sent.offset } else { position.events };
            let mut end = last.min(from + MAX_EVENTS as i32);
            let read_ahead = ahead.take(index, MAX_EVENTS)?.filter(|_| from == 0 && end == position.events);
            let entries = match read_ahead {
                Some(entries) => entries,
                None => events::read(org, position, from, &mut end, limits.entry)?.entries,
            };
            if let Some(offset) = last_missing(&entries, from..end) {
                *hole = (position.ms, position.stream_seq + i64::from(offset));
            }
            all.extend(entries);
            let is_whole = end >= last;
            *next = if is_whole {
                EventPosition::before(position.seq + 1)
            } else {
                EventPosition { seq: position.seq, offset: end }
            };
            if !is_whole || all.len() >= MAX_EVENTS {
                return Ok(all);
            }
        }
        // If no event of a page exists any more, reading continues, because an empty result means the end.
        if positions.is_empty() || !all.is_empty() {
            return Ok(all);
        }
    }
}

/// The stream id of the event after this position of the org.
pub fn stream_id(org: &str, next: EventPosition) -> Result<Option<(i64, i64)>> {
    let position = stream_contents::positions(org, next.seq, next.seq + 1, 1)?.pop();
    Ok(position.map(|position| (position.ms, position.stream_seq + i64::from(next.offset))))
}
