//! The positions whose events an org's stream should contain. The org is mirrored, the positions are not older than
//! `stream_age` of its tier, and they were not skipped while the mirror was off. If an org has a backfill time, the
//! backfill was requested after the mirror was last switched on for all orgs, because that step deletes earlier ones.
//!
//! Positions are read in time windows by the index of org and sequence number, so the cost of a page is proportional to
//! what it returns.

use std::cell::RefCell;

use pgrx::pg_sys::BuiltinOid::{INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;
use pgrx::{IntoDatum, PgBuiltInOids, pg_sys};

use super::position::EventPosition;
use crate::batch_reader::order::{self, WINDOW_UNIT};
use crate::batch_reader::{Position, position_columns};
use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::pg::streaming::{SlotRow, StreamingStatement, Visibility};
use crate::pg::time::to_postgres_time;
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, backward, forward};

/// Org, start and end of the time window, first sequence number, sequence number to stop before, limit, skipped
/// snapshot.
const ARGUMENTS: [PgBuiltInOids; 7] =
    [TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, TEXTOID];
const CONDITION: &str =
    "p.org_id = $1 AND p.placed_at >= $2 AND p.placed_at < $3 AND p.seq >= $4 AND p.seq < $5
    AND p.event_count > 0 AND ($7 IS NULL OR NOT pg_visible_in_snapshot(p.xid, $7::pg_snapshot))";

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
    static BOUNDS: StreamingStatement = const { StreamingStatement::new(
        // TimescaleDB cannot look for chunks of later times than this, and no position has a later time.
        "SELECT least(greatest(clock_timestamp() - least(t.stream_age, interval '36500 days') + interval '1 microsecond',
                               o.mirror_from), timestamptz '9999-12-31 00:00:00+00'), t.stream_entries,
                CASE WHEN o.mirror_from IS NULL THEN (SELECT m.after_seq FROM tailstream.mirror m)
                     ELSE -9223372036854775807 END,
                o.mirror_snapshot::text
         FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier WHERE o.org_id = $1 AND o.mirrored",
        &[TEXTOID]) };
    /// The org, the sequence number and the time of the last position that was read. Later positions have no earlier
    /// time.
    static LAST: RefCell<Option<(String, i64, i64)>> = const { RefCell::new(None) };
}

/// The limits of what an org's stream should contain now.
struct StreamBounds {
    /// In PostgreSQL's microseconds.
    since: i64,
    entries: i64,
    /// Positions up to this one are skipped. `None` if all are skipped, because the mirror never ran.
    after_seq: Option<i64>,
    /// Batches that are visible in this snapshot are skipped too.
    snapshot: Option<String>,
}

impl StreamBounds {
    /// The limits of an org; `None` if the org is not mirrored.
    fn of(org: &str) -> Result<Option<Self>> {
        let mut bounds = None;
        BOUNDS.with(|statement| {
            statement.each([org.into_datum()], Visibility::NewSnapshot, |row| {
                bounds = Some(Self {
                    since: row.int8(0).unwrap_or(i64::MIN),
                    entries: row.int8(1).unwrap_or(1),
                    after_seq: row.int8(2),
                    snapshot: row.text(3).map(str::to_owned),
                });
                false
            })
        })?;
        Ok(bounds)
    }

    /// Calls `take` with the rows that a query returns in a time window, until `take` returns false. `from` and
    /// `before` limit the sequence numbers, and `most` the number of rows.
    fn each(
        &self,
        org: &str,
        (columns, order): (&str, &str),
        (start, end): (i64, i64),
        (from, before, most): (i64, i64, i64),
        take: impl FnMut(SlotRow<'_>) -> bool,
    ) -> Result<()> {
        let Some(after_seq) = self.after_seq else { return Ok(()) };
        let sql =
            format!("SELECT {columns} FROM tailstream.positions p WHERE {CONDITION}{PLACEHOLDER} {order}");
        let values = [
            org.into_datum(),
            Some(start.into()),
            Some(end.into()),
            Some(from.max(after_seq.saturating_add(1)).into()),
            Some(before.into()),
            Some(most.into()),
            self.snapshot.as_deref().and_then(IntoDatum::into_datum),
        ];
        Spi::connect_mut(|_| {
            let plan = PLANS.with(|plans| plans.get(sql, (start, end)))?;
            plan.each(values, Visibility::ActiveSnapshot, take)
        })
    }
}

/// Returns up to `most` positions that an org's stream should contain, from `from` up to, not including, `before`.
pub fn positions(org: &str, from: i64, before: i64, most: usize) -> Result<Vec<Position>> {
    with_snapshot(|| {
        let Some(bounds) = StreamBounds::of(org)? else { return Ok(Vec::new()) };
        let since = last_read(org, from).map_or(bounds.since, |time| time.max(bounds.since));
        let mut found = Vec::new();
        for window in forward(since, order::now(), WINDOW_UNIT) {
            let left = (from, before, (most - found.len()) as i64);
            bounds.each(org, (position_columns!(), "ORDER BY p.seq LIMIT $6"), window, left, |row| {
                found.push(Position::of(&row));
                true
            })?;
            if found.len() >= most {
                break;
            }
        }
        let found: Vec<Position> = found.into_iter().collect::<Result<_>>()?;
        if let Some(last) = found.last() {
            LAST.set(Some((org.to_owned(), last.seq, to_postgres_time(last.ms * 1_000))));
        }
        Ok(found)
    })
}

/// The position of the oldest event in an org's stream before the position `before`, after trimming by count. `None` if
/// the stream should be empty.
pub fn start(org: &str, before: i64) -> Result<Option<EventPosition>> {
    with_snapshot(|| {
        let Some(bounds) = StreamBounds::of(org)? else { return Ok(None) };
        let (mut start, mut newer, mut failed) = (None, 0, false);
        for (from, to) in backward(i64::MAX, order::now(), WINDOW_UNIT) {
            // Each position has at least one event.
            let most = (i64::MIN, before, bounds.entries - newer);
            let window = (from.max(bounds.since), to);
            if window.0 < window.1 {
                bounds.each(
                    org,
                    ("p.seq, p.event_count", "ORDER BY p.seq DESC LIMIT $6"),
                    window,
                    most,
                    |row| {
                        let Some((seq, events)) = row.int8(0).zip(row.int4(1)) else {
                            failed = true;
                            return false;
                        };
                        newer += i64::from(events);
                        let offset = (newer - bounds.entries).max(0) as i32;
                        start = Some(EventPosition { seq, offset });
                        newer < bounds.entries
                    },
                )?;
            }
            if failed {
                return Err(Error::Internal("a NULL in a position"));
            }
            if newer >= bounds.entries || from <= bounds.since {
                break;
            }
        }
        Ok(start)
    })
}

/// The number of events that an org's stream should contain from a position on.
pub fn count(org: &str, from: EventPosition) -> Result<i64> {
    with_snapshot(|| {
        let Some(bounds) = StreamBounds::of(org)? else { return Ok(0) };
        let since = order::since(from.seq)?.map_or(bounds.since, |time| time.max(bounds.since));
        let mut events = 0;
        // The batch at `from` may be skipped itself; then its offset does not count.
        let is_begun = from.offset > 0 && bounds.after_seq.is_some_and(|after_seq| from.seq > after_seq);
        let columns =
            "coalesce(sum(p.event_count), 0)::bigint, count(*) FILTER (WHERE p.seq = $4 AND $6 > 0)";
        bounds.each(org, (columns, ""), (since, i64::MAX), (from.seq, i64::MAX, 1), |row| {
            let sent = if is_begun && row.int8(1) == Some(1) { i64::from(from.offset) } else { 0 };
            events = row.int8(0).unwrap_or_default() - sent;
            false
        })?;
        Ok(events)
    })
}

/// Returns the stream ids that events of the org were given in a range of milliseconds: for each batch, the
/// milliseconds and the range of the second number.
pub fn placed(org: &str, (first_ms, last_ms): (i64, i64)) -> Result<Vec<(i64, std::ops::Range<i64>)>> {
    let time = |ms: i64| to_postgres_time(ms.clamp(0, i64::MAX / 2_000).saturating_mul(1_000));
    let (start, end) = (time(first_ms), time(last_ms.saturating_add(1)));
    let bounds = StreamBounds { since: start, entries: 0, after_seq: Some(i64::MIN), snapshot: None };
    let mut found = Vec::new();
    with_snapshot(|| {
        let columns = concat!(position_columns!());
        let all = (i64::MIN, i64::MAX, i64::MAX);
        bounds.each(org, (columns, "LIMIT $6"), (start, end), all, |row| {
            found.push(Position::of(&row));
            true
        })
    })?;
    let numbers = |position: Position| {
        (position.ms, position.stream_seq..position.stream_seq + i64::from(position.events))
    };
    found.into_iter().map(|position| position.map(numbers)).collect()
}

/// A lower bound for the time of positions of the org from `from` on. Known only if an earlier position of the org was
/// the last one read.
fn last_read(org: &str, from: i64) -> Option<i64> {
    LAST.with_borrow(|last| {
        last.as_ref().filter(|(of, seq, _)| of == org && *seq <= from).map(|(_, _, time)| *time)
    })
}

/// Runs `body` with one snapshot for all time windows. With a later snapshot, a window could show a position that
/// follows one which an earlier window did not show yet.
fn with_snapshot<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    snapshot::current(|| {
        // SAFETY: inside a transaction.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        body()
    })
}
