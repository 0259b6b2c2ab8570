//! Whether this database knows the moment at which a token was made.
//!
//! A position is given once, but a database that was restored to an earlier moment, or lost its last commits in a failover,
//! gives those of after that moment again, to other batches. Who went on behind one of before would miss what has it now.
//! When a position was given tells the one from the other.

use core::ffi::CStr;

use pgrx::pg_sys::BuiltinOid::{INT8OID, TIMESTAMPTZOID};
use pgrx::{PgBuiltInOids, Spi, pg_sys};

use super::loss::from_ms;
use super::positions::STRETCH;
use super::scope::ALWAYS;
use crate::error::{Error, Result};
use crate::replay::token::{Boundary, Place, Token};
use crate::statement::raw::{RawPlan, View};
use crate::statement::stretch::{PLACEHOLDER, StretchPlans};
use crate::statement::{LatestQuery, snapshot, subtransaction};

/// The first and the last position that may be meant, and when it was given.
const ARGUMENTS: [PgBuiltInOids; 3] = [INT8OID, INT8OID, TIMESTAMPTZOID];

const PLACED_AT: &CStr = c"SELECT p.placed_at FROM tailstream.positions p WHERE p.seq = $1";
// Erasure may have taken the last ones before `after_seq`.
const LAST: &str = "SELECT greatest((SELECT p.seq FROM tailstream.positions p ORDER BY p.seq DESC LIMIT 1),
                                    (SELECT s.after_seq FROM tailstream.sequencer s), 0)";

thread_local! {
    static PLANS: StretchPlans = StretchPlans::new("p.placed_at", &ARGUMENTS, STRETCH);
    static BOUNDARY: LatestQuery = const { LatestQuery::new(PLACED_AT, &[INT8OID]) };
}

/// Error if the database went back to before the place of a token, or is a standby that has not come to it.
pub fn check_place(token: &Token) -> Result<()> {
    match token.place {
        Place::Arrival { seq, offset, placed_ms } => check_arrival(seq, offset, from_ms(placed_ms)),
        Place::Time { .. } => Ok(()),
    }
}

/// When a boundary's position was given, or long before if that is not known any more. Error as above.
pub fn placed_at(boundary: Boundary) -> Result<i64> {
    let seq = boundary.seq;
    let found = subtransaction::again_without_dropped_chunks(|| {
        BOUNDARY.with(|query| query.first(&mut [seq.into()])).map(|found| found.map(|[time]| time))
    })?;
    match found.map_or_else(|| placed_at_now(seq), |time| Ok(Some(time)))? {
        Some(time) if boundary.is_of(time) => Ok(time),
        None if was_given(seq)? => Ok(ALWAYS),
        _ => Err(unknown()),
    }
}

/// A place has the time of the position that it is in, or behind; or of the next one, where something was lost before it.
fn check_arrival(seq: i64, offset: i32, placed_at: i64) -> Result<()> {
    let query = format!(
        "SELECT p.seq FROM tailstream.positions p
         WHERE p.seq >= $1 AND p.seq <= $2 AND p.placed_at = $3{PLACEHOLDER} LIMIT 1"
    );
    let at = if offset > 0 { seq } else { seq.saturating_sub(1) };
    let values = (at, seq, placed_at);
    let plan = |plans: &StretchPlans| plans.get(query.clone(), (placed_at, placed_at.saturating_add(1)));
    if first(plan, values)?.is_some() || now(&query, values)?.is_some() {
        return Ok(());
    }
    let is_gone = |seq: i64| Ok(placed_at_now(seq)?.is_none() && was_given(seq)?);
    // Purged, or erased with its org; else it is another batch's by now. Positions are given in the order of time.
    let is_known = match placed_at_now(at)? {
        Some(before) => offset == 0 && before < placed_at && is_gone(seq)?,
        None => was_given(at)?,
    };
    if is_known { Ok(()) } else { Err(unknown()) }
}

fn placed_at_now(seq: i64) -> Result<Option<i64>> {
    now(&PLACED_AT.to_string_lossy(), (seq, seq, ALWAYS))
}

fn was_given(seq: i64) -> Result<bool> {
    Ok(now(LAST, (seq, seq, ALWAYS))?.is_some_and(|last| seq <= last))
}

/// What a query finds that is planned now, so no chunk is unknown to it.
fn now(query: &str, values: (i64, i64, i64)) -> Result<Option<i64>> {
    first(|plans| plans.of_moment(query), values)
}

/// The first number that is found in what is committed at this moment, whatever the isolation level.
fn first(
    plan: impl Fn(&StretchPlans) -> Result<RawPlan>,
    (from, to, at): (i64, i64, i64),
) -> Result<Option<i64>> {
    subtransaction::again_without_dropped_chunks(|| {
        snapshot::latest(|| {
            let mut found = None;
            Spi::connect_mut(|_| {
                let values = [Some(from.into()), Some(to.into()), Some(at.into())];
                PLANS.with(&plan)?.each(values, View::Active, |row| {
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
    if unsafe { pg_sys::RecoveryInProgress() } { Error::StandbyBehind } else { Error::UnknownMoment }
}
