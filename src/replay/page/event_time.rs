//! Pages in event-time order.

use pgrx::PgBuiltInOids;
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::{INT8OID, JSONBOID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;

use super::gap;
use super::request::{ALWAYS, PageRequest};
use super::rows::{Gap, Rows, datum};
use crate::error::Result;
use crate::pg::streaming::{SlotRow, Visibility};
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, border};
use crate::pg::{snapshot, subtransaction};
use crate::replay::token::Place;
use crate::storage::events::EVENTS;

/// Arguments: org, from, to, time and id of the start, limit, boundary, those of the filter, and the time of the boundary.
const ARGUMENTS: [PgBuiltInOids; 12] = [
    TEXTOID,
    TIMESTAMPTZOID,
    TIMESTAMPTZOID,
    TIMESTAMPTZOID,
    INT8OID,
    INT8OID,
    INT8OID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    JSONBOID,
    TIMESTAMPTZOID,
];
const FILTER: usize = 8;
/// Index of the argument limit.
const LIMIT: usize = 5;
/// Length of the first time window in microseconds; it doubles with each read. An hour is the default length of a chunk.
const WINDOW_UNIT: i64 = 3_600 * 1_000_000;

/// Excludes events with a position after the boundary, and those without a position. Checked event by event: a join would process all
/// positions after the boundary.
const UP_TO_BOUNDARY: &str = "
    AND (SELECT true FROM tailstream.positions p
         WHERE p.batch_id = id >> 16 AND p.org_id = $1 AND p.seq > $7 AND p.placed_at >= $12 LIMIT 1) IS NULL
    AND id >> 16 NOT IN (SELECT b.batch_id FROM tailstream.unplaced_batches($1) b)";

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("created_at", &ARGUMENTS, WINDOW_UNIT);
}

/// Where a page starts: after (or before) the event with this time and id.
#[derive(Debug, Clone, Copy)]
pub struct KeysetStart {
    pub at: (i64, i64),
    /// Whether a reader continues from here, so that a loss is reported.
    pub resumed: bool,
}

/// Adds the events after a place, and gap rows before them. Returns their number and the place after them.
pub fn forward(
    request: &mut PageRequest<'_>,
    start: KeysetStart,
    limit: usize,
    rows: &mut Rows,
) -> Result<(usize, Place)> {
    let last = place(start.at, false);
    let from = start.at.0.max(request.start);
    // A reader that starts here has not lost events that are hidden, only those that a longer retention cannot show again.
    let shown = (request.cutoff.saturating_sub(1), i64::MAX);
    let behind = if start.resumed { start.at } else { start.at.max(shown) };
    if from < request.lost_before && request.accounted_until < request.lost_before {
        let gap = gap::between(request, behind, request.lost_before)?;
        request.account_until(request.lost_before);
        if let Some(gap) = gap {
            rows.gap(gap, &request.token(last));
        }
    }
    let (found, end) = read(request, (from.max(request.cutoff), request.end), start.at, false, limit, rows)?;
    Ok((found, end.unwrap_or(last)))
}

/// Adds the events before a place, newest first, and gap rows after them.
pub fn backward(
    request: &mut PageRequest<'_>,
    start: KeysetStart,
    limit: usize,
    rows: &mut Rows,
) -> Result<usize> {
    // The place of a gap is before all events of its time.
    let before = if start.at.1 == i64::MIN { start.at.0 } else { start.at.0.saturating_add(1) };
    let (from, to) = (request.start.max(request.cutoff), request.end.min(before));
    let (found, end) = read(request, (from, to), start.at, true, limit, rows)?;
    let is_end = found < limit;
    let end = end.unwrap_or(place(start.at, true));
    let is_before = |time: i64| is_end || matches!(end, Place::Time { created_at, .. } if created_at < time);
    if request.accounted_until < request.lost_before && is_before(request.lost_before) {
        let gap = lost_in(request, (from, to.min(request.lost_before)))?;
        request.account_until(request.lost_before);
        if let Some(gap) = gap {
            rows.gap(gap, &request.token(end));
        }
    }
    // The cutoff has passed the start of the range while the reader was on its way there.
    if is_end
        && start.resumed
        && request.start != ALWAYS
        && let Some(gap) = lost_in(request, (request.start, to.min(request.cutoff)))?
    {
        rows.gap(gap, &request.token(place((request.start, i64::MIN), true)));
    }
    Ok(found)
}

/// The gap in a time range, if events may have been lost there.
fn lost_in(request: &PageRequest<'_>, (start, until): (i64, i64)) -> Result<Option<Gap>> {
    let range = PageRequest { start, accounted_until: ALWAYS, values: request.values, ..*request };
    gap::between(&range, (ALWAYS, i64::MIN), until)
}

fn place((created_at, id): (i64, i64), backward: bool) -> Place {
    Place::Time { created_at, id, backward }
}

/// Reads a range in one direction from a place. Returns the number of events, and the place after the last.
///
/// The range is read in time windows, the first one no longer than a chunk. Most pages are therefore planned for one or two
/// chunks, however many the range has.
fn read(
    request: &PageRequest<'_>,
    (from, to): (i64, i64),
    at: (i64, i64),
    backward: bool,
    limit: usize,
    rows: &mut Rows,
) -> Result<(usize, Option<Place>)> {
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let (mut found, mut last) = (0, None);
    let (mut from, mut to, mut length) = (from, to, WINDOW_UNIT);
    while from < to && found < limit {
        // The future has few chunks or none, so it is part of the last window.
        let window = if backward {
            (from.max(border(to.min(now).saturating_sub(length), WINDOW_UNIT)), to)
        } else {
            let end = border(from, WINDOW_UNIT).saturating_add(length);
            (from, if end > now { to } else { to.min(end) })
        };
        let mut page = Page { request, rows, backward, found, last };
        subtransaction::again_without_dropped_chunks(|| page.read(window, at, limit - found))?;
        (found, last) = (page.found, page.last);
        (from, to) = if backward { (from, window.0) } else { (window.1, to) };
        length = length.saturating_mul(2);
    }
    Ok((found, last))
}

/// The state of a page while it is read.
struct Page<'a, 'b> {
    request: &'a PageRequest<'b>,
    rows: &'a mut Rows,
    backward: bool,
    found: usize,
    last: Option<Place>,
}

impl Page<'_, '_> {
    fn read(&mut self, (from, to): (i64, i64), at: (i64, i64), limit: usize) -> Result<()> {
        // This comparison determines where the index scan starts, so it is used only if it is stricter than the range.
        let is_inside = if self.backward { at.0 < to } else { at.0 >= from };
        let [method, host, path, metadata] = self.request.values.arguments();
        let mut values: [Option<pg_sys::Datum>; ARGUMENTS.len()] = [
            Some(datum(self.request.org)?),
            Some(from.into()),
            Some(to.into()),
            Some(at.0.into()),
            Some(at.1.into()),
            Some((limit as i64).into()),
            Some(self.request.last_position().into()),
            method,
            host,
            path,
            metadata,
            self.request.boundary_at.map(pg_sys::Datum::from),
        ];
        let sql = query(self.request, is_inside, self.backward);
        Spi::connect_mut(|_| {
            let complete = self.request.complete;
            let plan = PLANS
                .with(|plans| if complete { plans.of_moment(&sql) } else { plans.get(sql, (from, to)) })?;
            // SAFETY: reads one variable.
            let is_versioned = unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as i32;
            if !is_versioned && !complete {
                // Planned under the newest snapshot: TimescaleDB finds chunks with it, and leaves out chunks that were dropped
                // since the calling query began. Read under a snapshot from after the locks: an earlier one could miss an event
                // that a rescue copied, in its old chunk and in its new one.
                return snapshot::current(|| {
                    plan.each(values, Visibility::NewSnapshot, |row| self.take(&row))
                });
            }
            // Dropped chunks are missing under every isolation level, so the copies must be visible: locks first, then a
            // snapshot. If no row may be missed, the plan is made under that snapshot too.
            let limit = values[LIMIT].replace(0_i64.into());
            snapshot::latest(|| plan.each(values, Visibility::ActiveSnapshot, |_| true))?;
            values[LIMIT] = limit;
            snapshot::latest(|| plan.each(values, Visibility::ActiveSnapshot, |row| self.take(&row)))
        })
    }

    fn take(&mut self, row: &SlotRow<'_>) -> bool {
        let at = (row.int8(1).unwrap_or_default(), row.int8(0).unwrap_or_default());
        let place = place(at, self.backward);
        self.rows.event(row, &self.request.token(place));
        (self.found, self.last) = (self.found + 1, Some(place));
        true
    }
}

fn query(request: &PageRequest<'_>, is_inside: bool, backward: bool) -> String {
    let (columns, filter) = (EVENTS.column_names(), request.filter.condition(FILTER));
    let (comparison, order) = if backward { ("<", " DESC") } else { (">", "") };
    let boundary = if request.boundary.is_some() { UP_TO_BOUNDARY } else { "" };
    let place =
        if is_inside { format!(" AND (created_at, id) {comparison} ($4, $5)") } else { String::new() };
    format!(
        "SELECT {columns} FROM tailstream.events
         WHERE org_id = $1 AND created_at >= $2 AND created_at < $3{PLACEHOLDER}{place}{filter}{boundary}
         ORDER BY created_at{order}, id{order} LIMIT $6"
    )
}
