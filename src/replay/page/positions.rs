//! Reads the positions of an org's batches, starting from one.

use pgrx::pg_sys::BuiltinOid::{INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::{PgBuiltInOids, Spi, pg_sys};

use super::gap::from_ms;
use super::request::{Next, PageRequest};
use super::rows::datum;
use crate::batch_reader::order::{self, WINDOW_UNIT};
use crate::batch_reader::{Position, position_columns};
use crate::error::Result;
use crate::pg::streaming::Visibility;
use crate::pg::subtransaction;
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, forward};

const ARGUMENTS: [PgBuiltInOids; 6] = [TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID];

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
}

/// The query for an org's positions, starting from one.
fn query() -> String {
    let columns = position_columns!();
    format!(
        "SELECT {columns} FROM tailstream.positions p
         WHERE p.org_id = $1 AND p.seq >= $2 AND p.seq <= $3 AND p.placed_at >= $4 AND p.placed_at < $5{PLACEHOLDER}
         ORDER BY p.seq LIMIT $6"
    )
}

/// The next positions of the org, in order.
pub fn next(request: &PageRequest<'_>, from: Next, most: usize) -> Result<Vec<Position>> {
    // All windows are read under one snapshot: a later snapshot may show a position whose predecessor an earlier one did not show.
    // The sequencer creates chunks in order, so if the snapshot shows positions after a chunk, this session knows that chunk.
    subtransaction::again_without_dropped_chunks(|| {
        request.with_snapshot(|| {
            // SAFETY: inside a transaction.
            unsafe { pg_sys::AcceptInvalidationMessages() };
            shown(request, from, most)
        })
    })
}

/// Those that the active snapshot shows, in time windows for the sake of chunks.
fn shown(request: &PageRequest<'_>, next: Next, most: usize) -> Result<Vec<Position>> {
    let mut found = Vec::new();
    for window in forward(from_ms(next.placed_ms), order::now(), WINDOW_UNIT) {
        in_time_window(request, next.seq, window, most, &mut found)?;
        if found.len() >= most {
            break;
        }
    }
    Ok(found)
}

fn in_time_window(
    request: &PageRequest<'_>,
    seq: i64,
    (from, end): (i64, i64),
    most: usize,
    found: &mut Vec<Position>,
) -> Result<()> {
    let values = [
        Some(datum(request.org)?),
        Some(seq.into()),
        Some(request.last_position().into()),
        Some(from.into()),
        Some(end.into()),
        Some(((most - found.len()) as i64).into()),
    ];
    let mut failed = None;
    Spi::connect_mut(|_| {
        let plan = PLANS.with(|plans| {
            if request.complete { plans.of_moment(&query()) } else { plans.get(query(), (from, end)) }
        })?;
        plan.each(values, Visibility::ActiveSnapshot, |row| {
            match Position::of(&row) {
                Ok(position) => found.push(position),
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })
    })?;
    failed.map_or(Ok(()), Err)
}
