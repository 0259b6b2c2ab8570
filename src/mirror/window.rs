//! The positions whose events an org's stream should hold: of an org that is mirrored, not older than its tier's stream_age,
//! and not what was left out when the mirror was off. A backfill came after the mirror was last switched on for all, or its
//! time would be gone.
//!
//! They are read in stretches of time by the index of org and number, so a page costs what it has.

use std::cell::RefCell;

use pgrx::pg_sys::BuiltinOid::{INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;
use pgrx::{IntoDatum, PgBuiltInOids, pg_sys};

use super::marker::Cursor;
use crate::batch_reader::order::{self, WINDOW_UNIT};
use crate::batch_reader::{Position, position_columns};
use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::pg::streaming::{SlotRow, StreamingStatement, Visibility};
use crate::pg::time::to_postgres_time;
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, backward, forward};

/// Org, from, to, first number, the number behind the last, limit, what was left out.
const ARGUMENTS: [PgBuiltInOids; 7] =
    [TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, TEXTOID];
const CONDITION: &str =
    "p.org_id = $1 AND p.placed_at >= $2 AND p.placed_at < $3 AND p.seq >= $4 AND p.seq < $5
    AND p.event_count > 0 AND ($7 IS NULL OR NOT pg_visible_in_snapshot(p.xid, $7::pg_snapshot))";

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
    static WINDOW: StreamingStatement = const { StreamingStatement::new(
        // Beyond the last time that TimescaleDB can look for chunks of, all times are alike: nothing is placed then.
        "SELECT least(greatest(clock_timestamp() - least(t.stream_age, interval '36500 days') + interval '1 microsecond',
                               o.mirror_from), timestamptz '9999-12-31 00:00:00+00'), t.stream_entries,
                CASE WHEN o.mirror_from IS NULL THEN (SELECT m.after_seq FROM tailstream.mirror m)
                     ELSE -9223372036854775807 END,
                o.mirror_snapshot::text
         FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier WHERE o.org_id = $1 AND o.mirrored",
        &[TEXTOID]) };
    /// The org and the position that were read last, and when that was given: what comes behind it was given no earlier.
    static LAST: RefCell<Option<(String, i64, i64)>> = const { RefCell::new(None) };
}

/// What an org's stream should hold now.
struct Window {
    /// PostgreSQL's microseconds.
    since: i64,
    entries: i64,
    /// Everything up to this position is left out; `None` if all is, for the mirror never ran.
    after_seq: Option<i64>,
    /// So is what was committed in this snapshot.
    snapshot: Option<String>,
}

impl Window {
    /// `None` if the org is not mirrored.
    fn of(org: &str) -> Result<Option<Self>> {
        let mut window = None;
        WINDOW.with(|statement| {
            statement.each([org.into_datum()], Visibility::NewSnapshot, |row| {
                window = Some(Self {
                    since: row.int8(0).unwrap_or(i64::MIN),
                    entries: row.int8(1).unwrap_or(1),
                    after_seq: row.int8(2),
                    snapshot: row.text(3).map(str::to_owned),
                });
                false
            })
        })?;
        Ok(window)
    }

    /// Gives `take` what a query finds in a stretch, until that returns false.
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

/// An org's mirrored positions from one on, before another.
pub fn positions(org: &str, from: i64, before: i64, most: usize) -> Result<Vec<Position>> {
    with_snapshot(|| {
        let Some(window) = Window::of(org)? else { return Ok(Vec::new()) };
        let since = last_read(org, from).map_or(window.since, |time| time.max(window.since));
        let mut found = Vec::new();
        for stretch in forward(since, order::now(), WINDOW_UNIT) {
            let left = (from, before, (most - found.len()) as i64);
            window.each(org, (position_columns!(), "ORDER BY p.seq LIMIT $6"), stretch, left, |row| {
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

/// Where an org's stream begins, seen from a position: with the oldest event that trimming by count leaves. `None` if
/// it has nothing in it.
pub fn start(org: &str, before: i64) -> Result<Option<Cursor>> {
    with_snapshot(|| {
        let Some(window) = Window::of(org)? else { return Ok(None) };
        let (mut start, mut newer, mut failed) = (None, 0, false);
        for (from, to) in backward(i64::MAX, order::now(), WINDOW_UNIT) {
            // Each position has an event at least.
            let most = (i64::MIN, before, window.entries - newer);
            let stretch = (from.max(window.since), to);
            if stretch.0 < stretch.1 {
                window.each(
                    org,
                    ("p.seq, p.event_count", "ORDER BY p.seq DESC LIMIT $6"),
                    stretch,
                    most,
                    |row| {
                        let Some((seq, events)) = row.int8(0).zip(row.int4(1)) else {
                            failed = true;
                            return false;
                        };
                        newer += i64::from(events);
                        let offset = (newer - window.entries).max(0) as i32;
                        start = Some(Cursor { seq, offset });
                        newer < window.entries
                    },
                )?;
            }
            if failed {
                return Err(Error::Internal("a NULL in a position"));
            }
            if newer >= window.entries || from <= window.since {
                break;
            }
        }
        Ok(start)
    })
}

/// How many events an org has from a position on.
pub fn count(org: &str, from: Cursor) -> Result<i64> {
    with_snapshot(|| {
        let Some(window) = Window::of(org)? else { return Ok(0) };
        let since = order::since(from.seq)?.map_or(window.since, |time| time.max(window.since));
        let mut events = 0;
        // The first one may be left out itself.
        let is_begun = from.offset > 0 && window.after_seq.is_some_and(|after_seq| from.seq > after_seq);
        let columns =
            "coalesce(sum(p.event_count), 0)::bigint, count(*) FILTER (WHERE p.seq = $4 AND $6 > 0)";
        window.each(org, (columns, ""), (since, i64::MAX), (from.seq, i64::MAX, 1), |row| {
            let sent = if is_begun && row.int8(1) == Some(1) { i64::from(from.offset) } else { 0 };
            events = row.int8(0).unwrap_or_default() - sent;
            false
        })?;
        Ok(events)
    })
}

/// What an org was given places for in these milliseconds: milliseconds, and the numbers of the stream ids.
pub fn placed(org: &str, (first_ms, last_ms): (i64, i64)) -> Result<Vec<(i64, std::ops::Range<i64>)>> {
    let time = |ms: i64| to_postgres_time(ms.clamp(0, i64::MAX / 2_000).saturating_mul(1_000));
    let (start, end) = (time(first_ms), time(last_ms.saturating_add(1)));
    let window = Window { since: start, entries: 0, after_seq: Some(i64::MIN), snapshot: None };
    let mut found = Vec::new();
    with_snapshot(|| {
        let columns = concat!(position_columns!());
        let all = (i64::MIN, i64::MAX, i64::MAX);
        window.each(org, (columns, "LIMIT $6"), (start, end), all, |row| {
            found.push(Position::of(&row));
            true
        })
    })?;
    let numbers = |position: Position| {
        (position.ms, position.stream_seq..position.stream_seq + i64::from(position.events))
    };
    found.into_iter().map(|position| position.map(numbers)).collect()
}

/// Since when there can be positions of the org from one on, if an earlier one was read last.
fn last_read(org: &str, from: i64) -> Option<i64> {
    LAST.with_borrow(|last| {
        last.as_ref().filter(|(of, seq, _)| of == org && *seq <= from).map(|(_, _, time)| *time)
    })
}

/// One snapshot for all stretches: a later one could show something behind what an earlier one did not show yet.
fn with_snapshot<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    snapshot::current(|| {
        // SAFETY: inside a transaction.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        body()
    })
}
