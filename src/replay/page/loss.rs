//! Whether a reader has lost events that it had not reached.
//!
//! What is gone cannot be asked any more, but the positions of batches outlive their events: they tell whether there
//! was anything. Where they do not reach back far enough the answer is that something may be lost.

use pgrx::pg_sys::BuiltinOid::{INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;

use super::rows::{Gap, Reason};
use super::scope::{ALWAYS, Scope, in_range};
use crate::error::{Error, Result, spi};
use crate::replay::token::Place;
use crate::statement::{Statement, arg};
use crate::tier::cache;

const LOOKING: &str = "looking for lost events";

thread_local! {
    // Without a sequencer the ledger is kept in its stead, and all of it is unplaced. No event is further ahead of the time at which it was received than a day: the range of max_future_skew.
    static MAY_BE_LOST: Statement = const { Statement::new(
        LOOKING,
        "SELECT coalesce((SELECT p.seq > 1 AND p.placed_at > $2 - interval '24 hours'
                          FROM tailstream.positions p ORDER BY p.seq LIMIT 1),
                         (SELECT min(b.batch_id) > 1 AND min(b.received_at) > $2 - interval '24 hours'
                          FROM tailstream.batches b), true)
             OR EXISTS (SELECT FROM tailstream.positions p
                        WHERE p.org_id = $1 AND p.placed_at >= $2 - interval '24 hours' AND p.seq <= $5
                          AND (p.last_event_at, (p.batch_id << 16) + p.event_count - 1) > ($2, $3) AND p.first_event_at < $4)
             OR EXISTS (SELECT FROM tailstream.unplaced_batches($1, $2 - interval '24 hours') b
                        WHERE (b.last_event_at, (b.batch_id << 16) + b.event_count - 1) > ($2, $3) AND b.first_event_at < $4)",
        &[TEXTOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, INT8OID]) };
    static OLDEST: Statement = const { Statement::new(
        LOOKING, "SELECT p.seq FROM tailstream.positions p ORDER BY p.seq LIMIT 1", &[]) };
}

/// What a reader that stands behind this event has lost up to a time, in the order of event times.
pub fn between(scope: &Scope<'_>, behind: (i64, i64), until: i64) -> Result<Option<Gap>> {
    let from_start = |start: i64| (start.saturating_sub(1), i64::MAX);
    let (time, id) = behind.max(from_start(scope.start)).max(from_start(scope.reach));
    let to = until.min(scope.end);
    let from = if id == i64::MAX { time.saturating_add(1) } else { time };
    if from >= to || !may_be_lost(scope, (time, id), to)? {
        return Ok(None);
    }
    Ok(Some(Gap { from, to, reason: Reason::Retention }))
}

fn may_be_lost(scope: &Scope<'_>, (time, id): (i64, i64), to: i64) -> Result<bool> {
    let arguments = [
        arg(scope.org.to_owned()),
        arg(timestamp(time)?),
        arg(id),
        arg(timestamp(to)?),
        arg(scope.last_position()),
    ];
    Spi::connect(|client| {
        let row = MAY_BE_LOST.with(|statement| statement.read(client, &arguments))?.first();
        Ok(row.get::<bool>(1).map_err(spi(LOOKING))?.unwrap_or(true))
    })
}

fn timestamp(time: i64) -> Result<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(in_range(time)).map_err(|_| Error::Internal("a time out of range"))
}

/// The first position from this one on that is known: those before it were purged, with all that was known of their batches.
pub fn first_known_position(from: i64) -> Result<i64> {
    let oldest = OLDEST.with(|statement| statement.first_numbers::<1>(&[]))?;
    Ok(oldest.map_or(from, |[oldest]| oldest.max(from)))
}

/// What a reader has lost if its org was erased since it was there.
pub fn by_erasure(scope: &Scope<'_>, place: Place, life: u32) -> Result<Option<Gap>> {
    if life == 0 || life == scope.life {
        return Ok(None);
    }
    let registered_at = cache::find(scope.org)?.map(|org| org.registered_at);
    // SAFETY: reads the clock.
    let until = registered_at.unwrap_or_else(|| unsafe { pg_sys::GetCurrentTimestamp() });
    let from = match place {
        Place::Time { created_at, backward: false, .. } => created_at,
        Place::Time { .. } => scope.start,
        Place::Arrival { placed_ms, .. } => first_behind(scope.org, placed_ms)?,
    };
    // A range without beginning begins with what is shown.
    let from = if from == ALWAYS { scope.floor } else { from };
    Ok(Some(Gap { from: from.min(until), to: until, reason: Reason::Erased }))
}

/// The earliest time of what an org may have been given a position for since: it comes as late as it is kept.
pub fn first_behind(org: &str, placed_ms: i64) -> Result<i64> {
    Ok(from_ms(placed_ms).saturating_sub(crate::replay::retention_of(org)?))
}

/// Milliseconds since the Unix epoch as PostgreSQL's microseconds.
pub fn from_ms(ms: i64) -> i64 {
    crate::tier::to_postgres_time(ms.saturating_mul(1_000))
}
