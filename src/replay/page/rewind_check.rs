//! The rewind check: whether this database is still the one in which a token was made.
//!
//! A position is given once. But a database that was restored to an earlier point in time, or that lost its last commits in
//! a failover, gives the later positions again, to other batches. A reader that resumes from a token issued before the
//! rewind would skip the batch that reused its position. The time at which a position was given tells the two apart.

use pgrx::pg_sys::BuiltinOid::{INT8OID, TIMESTAMPTZOID};
use pgrx::{PgBuiltInOids, Spi, pg_sys};

use super::gap::from_ms;
use super::request::ALWAYS;
use crate::batch_reader::order::{self, PositionRow, WINDOW_UNIT};
use crate::error::{Error, Result};
use crate::pg::streaming::StreamingStatement;
use crate::pg::streaming::{StreamingPlan, Visibility};
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans};
use crate::pg::{snapshot, subtransaction};
use crate::replay::token::{Boundary, Place, Token};

/// The first and the last position to search, and the time of the position.
const ARGUMENTS: [PgBuiltInOids; 3] = [INT8OID, INT8OID, TIMESTAMPTZOID];

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
    // Erasure may have deleted the last positions before this one.
    static AFTER: StreamingStatement = const { StreamingStatement::new(
        "SELECT s.after_seq FROM tailstream.sequencer s", &[]) };
}

/// Error if the database was rewound to before the place of a token, or is a standby that has not replayed it.
pub fn check_place(token: &Token) -> Result<()> {
    match token.place {
        Place::Arrival { seq, offset, placed_ms } => check_arrival(seq, offset, from_ms(placed_ms)),
        Place::Time { .. } => Ok(()),
    }
}

/// The time of a boundary's position, or a much earlier time if it is not known. Error as above.
pub fn placed_at(boundary: Boundary) -> Result<i64> {
    let seq = boundary.seq;
    match placed_at_now(seq)? {
        Some(time) if boundary.is_of(time) => Ok(time),
        None if was_given(seq)? => Ok(ALWAYS),
        _ => Err(unknown()),
    }
}

/// A place has the time of its position, of the one before it, or, after a loss, of the next one.
fn check_arrival(seq: i64, offset: i32, placed_at: i64) -> Result<()> {
    let query = format!(
        "SELECT p.seq FROM tailstream.positions p
         WHERE p.seq >= $1 AND p.seq <= $2 AND p.placed_at = $3{PLACEHOLDER} LIMIT 1"
    );
    let at = if offset > 0 { seq } else { seq.saturating_sub(1) };
    let values = (at, seq, placed_at);
    let plan = |plans: &TimeWindowPlans| plans.get(query.clone(), (placed_at, placed_at.saturating_add(1)));
    if first(plan, values)?.is_some() || now(&query, values)?.is_some() {
        return Ok(());
    }
    let is_gone = |seq: i64| Ok(placed_at_now(seq)?.is_none() && was_given(seq)?);
    // The position was purged or erased, or it belongs to another batch by now. Times increase with positions.
    let is_known = match placed_at_now(at)? {
        Some(before) => offset == 0 && before < placed_at && is_gone(seq)?,
        None => was_given(at)?,
    };
    if is_known { Ok(()) } else { Err(unknown()) }
}

/// The time of a position, if it exists in what is committed now.
fn placed_at_now(seq: i64) -> Result<Option<i64>> {
    let last = last_now(seq.saturating_add(1))?;
    Ok(last.filter(|last| last.seq == seq).map(|last| last.placed_at))
}

fn was_given(seq: i64) -> Result<bool> {
    let after = AFTER.with(|query| query.first_committed([]))?.map_or(0, |[after]: [i64; 1]| after);
    let last = last_now(i64::MAX)?.map_or(0, |last| last.seq);
    Ok(seq <= after.max(last).max(0))
}

/// The last position before a number in what is committed now, under any isolation level, including new chunks.
fn last_now(seq: i64) -> Result<Option<PositionRow>> {
    subtransaction::again_without_dropped_chunks(|| snapshot::latest(|| order::last_before_now(seq)))
}

/// Runs a query that is planned now, so that it knows all chunks.
fn now(query: &str, values: (i64, i64, i64)) -> Result<Option<i64>> {
    first(|plans| plans.of_moment(query), values)
}

/// The first result of a query in what is committed now, under any isolation level.
fn first(
    plan: impl Fn(&TimeWindowPlans) -> Result<StreamingPlan>,
    (from, to, at): (i64, i64, i64),
) -> Result<Option<i64>> {
    subtransaction::again_without_dropped_chunks(|| {
        snapshot::latest(|| {
            let mut found = None;
            Spi::connect_mut(|_| {
                let values = [Some(from.into()), Some(to.into()), Some(at.into())];
                PLANS.with(&plan)?.each(values, Visibility::ActiveSnapshot, |row| {
                    found = row.int8(0);
                    false
                })
            })?;
            Ok(found)
        })
    })
}

fn unknown() -> Error {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } { Error::StandbyBehind } else { Error::DatabaseRewound }
}
