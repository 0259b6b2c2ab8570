//! Pages in the order of event times.

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

/// Arguments: org, from, to, time and id of the place, limit, boundary, then those of the filter, and when the boundary
/// was placed.
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
/// Index of the limit.
const LIMIT: usize = 5;
/// What is read first, and then twice as much each time: microseconds. An hour is what a chunk has unless it was changed.
const WINDOW_UNIT: i64 = 3_600 * 1_000_000;

/// Not what has a place behind the boundary, nor what has none yet. Asked event by event: as a join it would be made from all
/// that came since.
const UP_TO_BOUNDARY: &str = "
    AND (SELECT true FROM tailstream.positions p
         WHERE p.batch_id = id >> 16 AND p.org_id = $1 AND p.seq > $7 AND p.placed_at >= $12 LIMIT 1) IS NULL
    AND id >> 16 NOT IN (SELECT b.batch_id FROM tailstream.unplaced_batches($1) b)";

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("created_at", &ARGUMENTS, WINDOW_UNIT);
}

/// Between which events a page lies: the time and the id of the one behind (or before) which it begins.
#[derive(Debug, Clone, Copy)]
pub struct KeysetStart {
    pub at: (i64, i64),
    /// Somebody was there before: what was lost since is told.
    pub resumed: bool,
}

/// Adds the events behind a place, and before them what was lost there. Returns how many and the place behind them.
pub fn forward(
    request: &mut PageRequest<'_>,
    start: KeysetStart,
    limit: usize,
    rows: &mut Rows,
) -> Result<(usize, Place)> {
    let last = place(start.at, false);
    let from = start.at.0.max(request.start);
    // Who begins here has not lost what is hidden, but what a longer retention does not bring back.
    let shown = (request.cutoff.saturating_sub(1), i64::MAX);
    let behind = if start.resumed { start.at } else { start.at.max(shown) };
    if from < request.lost_before && request.accounted_until < request.lost_before {
        let gap = gap::between(request, behind, request.lost_before)?;
        request.tell(request.lost_before);
        if let Some(gap) = gap {
            rows.gap(gap, &request.token(last));
        }
    }
    let (found, end) = read(request, (from.max(request.cutoff), request.end), start.at, false, limit, rows)?;
    Ok((found, end.unwrap_or(last)))
}

/// Adds the events before a place, newest first, and behind them what was lost there.
pub fn backward(
    request: &mut PageRequest<'_>,
    start: KeysetStart,
    limit: usize,
    rows: &mut Rows,
) -> Result<usize> {
    // A gap's place is before all events of its time.
    let before = if start.at.1 == i64::MIN { start.at.0 } else { start.at.0.saturating_add(1) };
    let (from, to) = (request.start.max(request.cutoff), request.end.min(before));
    let (found, end) = read(request, (from, to), start.at, true, limit, rows)?;
    let is_end = found < limit;
    let end = end.unwrap_or(place(start.at, true));
    let is_before = |time: i64| is_end || matches!(end, Place::Time { created_at, .. } if created_at < time);
    if request.accounted_until < request.lost_before && is_before(request.lost_before) {
        let gap = lost_in(request, (from, to.min(request.lost_before)))?;
        request.tell(request.lost_before);
        if let Some(gap) = gap {
            rows.gap(gap, &request.token(end));
        }
    }
    // The cutoff has overtaken the range's beginning while it was on its way there.
    if is_end
        && start.resumed
        && request.start != ALWAYS
        && let Some(gap) = lost_in(request, (request.start, to.min(request.cutoff)))?
    {
        rows.gap(gap, &request.token(place((request.start, i64::MIN), true)));
    }
    Ok(found)
}

/// What may have been lost in a range of time.
fn lost_in(request: &PageRequest<'_>, (start, until): (i64, i64)) -> Result<Option<Gap>> {
    let range = PageRequest { start, accounted_until: ALWAYS, values: request.values, ..*request };
    gap::between(&range, (ALWAYS, i64::MIN), until)
}

fn place((created_at, id): (i64, i64), backward: bool) -> Place {
    Place::Time { created_at, id, backward }
}

/// Reads a range in one direction, from a place in it on. Returns how many events there were, and the place behind the last.
///
/// The range is read in windows, the first one no longer than a chunk: so most pages are planned for one or two chunks,
/// however many the range has.
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
        // What is to come has few chunks or none, and belongs to the present.
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

/// A page that is being read.
struct Page<'a, 'b> {
    request: &'a PageRequest<'b>,
    rows: &'a mut Rows,
    backward: bool,
    found: usize,
    last: Option<Place>,
}

impl Page<'_, '_> {
    fn read(&mut self, (from, to): (i64, i64), at: (i64, i64), limit: usize) -> Result<()> {
        // The index is entered by this comparison, so it must be there only where it says more than the range.
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
                // Planned under a snapshot of this moment: TimescaleDB looks its chunks up with it, and one that was dropped
                // since the calling query began is not there. And read with one from after the locks: an earlier one could
                // show an event neither in its old chunk nor in the one it was copied to.
                return snapshot::current(|| {
                    plan.each(values, Visibility::NewSnapshot, |row| self.take(&row))
                });
            }
            // The purge is seen at every level, so what it has copied must be, too: locks first, then a snapshot. And where
            // all that the snapshot shows has to be known, it is planned under it.
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
