//! Gaps: whether a reader has lost events before it read them.
//!
//! Events that are gone cannot be queried, but the positions of batches outlive their events. They tell whether there were
//! any. Where positions do not go back far enough, the answer is that events may be lost.

use pgrx::pg_sys::BuiltinOid::{INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;
use pgrx::{PgBuiltInOids, pg_sys};

use super::request::{ALWAYS, PageRequest, in_range};
use super::rows::{Gap, Reason, datum};
use crate::batch_reader::order::{self, PositionCoverage, WINDOW_UNIT};
use crate::error::{Error, Result};
use crate::pg::statement::{Statement, arg};
use crate::pg::streaming::Visibility;
use crate::pg::time;
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, forward};
use crate::pg::{snapshot, subtransaction};
use crate::replay::token::Place;
use crate::tier::cache;

const LOOKING: &str = "looking for lost events";

/// No event time is later than a day after the event was received: the maximum of max_future_skew.
const MAX_AHEAD: i64 = 24 * 3_600 * 1_000_000;

/// Org, window start and end, time and id of the reader's event, end of the range, and the last position.
const ARGUMENTS: [PgBuiltInOids; 7] =
    [TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, INT8OID];

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
    // Without a sequencer, the ledger is kept instead of positions, and none of its batches has one.
    static LEDGER_IS_CUT: Statement = const { Statement::new(
        LOOKING,
        "SELECT coalesce(min(b.batch_id) > 1 AND min(b.received_at) > $1, true)::int::bigint FROM tailstream.batches b",
        &[TIMESTAMPTZOID]) };
    static UNPLACED: Statement = const { Statement::new(
        LOOKING,
        "SELECT 1::bigint FROM tailstream.unplaced_batches($1, $5) b
         WHERE (b.last_event_at, (b.batch_id << 16) + b.event_count - 1) > ($2, $3) AND b.first_event_at < $4 LIMIT 1",
        &[TEXTOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID]) };
}

/// The gap between the event after which a reader continues and a time, in event-time order.
pub fn between(request: &PageRequest<'_>, behind: (i64, i64), until: i64) -> Result<Option<Gap>> {
    let from_start = |start: i64| (start.saturating_sub(1), i64::MAX);
    let (time, id) = behind.max(from_start(request.start)).max(from_start(request.accounted_until));
    let to = until.min(request.end);
    let from = if id == i64::MAX { time.saturating_add(1) } else { time };
    if from >= to || !may_be_lost(request, (time, id), to)? {
        return Ok(None);
    }
    Ok(Some(Gap { from, to, reason: Reason::Retention }))
}

fn may_be_lost(request: &PageRequest<'_>, (time, id): (i64, i64), to: i64) -> Result<bool> {
    let (time, to) = (in_range(time), in_range(to));
    let since = time.saturating_sub(MAX_AHEAD);
    subtransaction::again_without_dropped_chunks(|| {
        // Batches without a position first: one that is sequenced meanwhile is then found by one of the two queries.
        if any_unplaced(request, since, (time, id), to)? {
            return Ok(true);
        }
        snapshot::current(|| {
            // SAFETY: inside a transaction.
            unsafe { pg_sys::AcceptInvalidationMessages() };
            let is_cut = match order::coverage(since)? {
                PositionCoverage::Complete => false,
                PositionCoverage::From(oldest) => oldest.seq > 1,
                PositionCoverage::Empty => {
                    let cut =
                        LEDGER_IS_CUT.with(|query| query.first_numbers::<1>(&[arg(timestamp(since)?)]))?;
                    cut != Some([0])
                }
            };
            Ok(is_cut || any_placed(request, since, (time, id), to)?)
        })
    })
}

/// Whether a batch with a position has an event in the range.
fn any_placed(request: &PageRequest<'_>, since: i64, (time, id): (i64, i64), to: i64) -> Result<bool> {
    let sql = format!(
        "SELECT 1::bigint FROM tailstream.positions p
         WHERE p.org_id = $1 AND p.placed_at >= $2 AND p.placed_at < $3{PLACEHOLDER} AND p.seq <= $7
           AND (p.last_event_at, (p.batch_id << 16) + p.event_count - 1) > ($4, $5) AND p.first_event_at < $6 LIMIT 1"
    );
    let mut any = false;
    // A batch that was sequenced at some time has events of that time or earlier, apart from the permitted skew.
    for (start, end) in forward(since, order::now(), WINDOW_UNIT) {
        let values = [
            Some(datum(request.org)?),
            Some(start.into()),
            Some(end.into()),
            Some(time.into()),
            Some(id.into()),
            Some(to.into()),
            Some(request.last_position().into()),
        ];
        Spi::connect_mut(|_| {
            let plan = PLANS.with(|plans| plans.get(sql.clone(), (start, end)))?;
            plan.each(values, Visibility::ActiveSnapshot, |_| {
                any = true;
                false
            })
        })?;
        if any {
            break;
        }
    }
    Ok(any)
}

/// Whether a batch without a position has an event in the range.
fn any_unplaced(request: &PageRequest<'_>, since: i64, (time, id): (i64, i64), to: i64) -> Result<bool> {
    let arguments = [
        arg(request.org.to_owned()),
        arg(timestamp(time)?),
        arg(id),
        arg(timestamp(to)?),
        arg(timestamp(since)?),
    ];
    Ok(UNPLACED.with(|query| query.first_numbers::<1>(&arguments))?.is_some())
}

fn timestamp(time: i64) -> Result<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(in_range(time)).map_err(|_| Error::Internal("a time out of range"))
}

/// The first existing position from this one on; those before it were purged. No position from this one on was assigned before
/// `placed_ms`.
pub fn first_known_position(from: i64, placed_ms: i64) -> Result<i64> {
    let before = from_ms(placed_ms).saturating_sub(1);
    let kept = subtransaction::again_without_dropped_chunks(|| {
        snapshot::current(|| order::coverage(in_range(before)))
    })?;
    Ok(match kept {
        // An earlier time means a lower position.
        PositionCoverage::Complete | PositionCoverage::Empty => from,
        PositionCoverage::From(oldest) => oldest.seq.max(from),
    })
}

/// The gap of a reader whose org was erased since its last read.
pub fn by_erasure(request: &PageRequest<'_>, place: Place, incarnation: u32) -> Result<Option<Gap>> {
    if incarnation == 0 || incarnation == request.incarnation {
        return Ok(None);
    }
    let registered_at = cache::find(request.org)?.map(|org| org.registered_at);
    // SAFETY: reads the clock.
    let until = registered_at.unwrap_or_else(|| unsafe { pg_sys::GetCurrentTimestamp() });
    let from = match place {
        Place::Time { created_at, backward: false, .. } => created_at,
        Place::Time { .. } => request.start,
        Place::Arrival { placed_ms, .. } => first_behind(request.org, placed_ms)?,
    };
    // A range without start begins at the cutoff.
    let from = if from == ALWAYS { request.cutoff } else { from };
    Ok(Some(Gap { from: from.min(until), to: until, reason: Reason::Erased }))
}

/// The earliest event time that may have been sequenced since then: no event is stored after its retention.
pub fn first_behind(org: &str, placed_ms: i64) -> Result<i64> {
    Ok(from_ms(placed_ms).saturating_sub(crate::replay::retention_of(org)?))
}

/// Milliseconds since the Unix epoch as PostgreSQL's microseconds.
pub fn from_ms(ms: i64) -> i64 {
    time::to_postgres_time(ms.saturating_mul(1_000))
}
