//! Lets the planner exclude chunks before the start of `ts_replay`.
//!
//! With `start_time => now() - interval '1 hour'` the start is not known before execution, so the planner would plan every chunk
//! and exclude most of them later. `ts_replay` therefore has one more condition, `created_at >= planned_start(start_time)`. While
//! a query is planned, the support function replaces it by a constant: a time that the start cannot precede whenever the plan is
//! executed, or -infinity if there is none.

use pgrx::pg_sys;

use super::page::request::in_range;
use crate::pg::function::pg_function;

const HOUR: i64 = 3_600 * 1_000_000;
const DAY: i64 = 24 * HOUR;

/// A saved plan may be executed after the clock was set back by this much. In microseconds.
const CLOCK_MARGIN: i64 = 3 * HOUR;

/// A difference of days is not a multiple of 24 hours if the offset of the time zone changes in between, by up to a day where
/// a zone changed sides of the date line.
const ZONE_MARGIN: i64 = 26 * HOUR;

/// The longest and the shortest month in days.
const LONG_MONTH: i64 = 31;
const SHORT_MONTH: i64 = 28;

/// More months or days than this are not estimated. The arithmetic below cannot overflow.
const MAX_UNITS: i32 = 1_000_000;

/// Microseconds of an interval beyond which it is not estimated.
const MAX_TIME: i64 = 1_000_000 * DAY;

pg_function! {
    /// `tailstream.planned_start(start_time timestamptz) → timestamptz`: -infinity, if it is executed at all.
    fn planned_start_wrapper(_fcinfo) -> Datum {
        pg_sys::Datum::from(i64::MIN)
    }
}

pg_function! {
    /// The support function of `tailstream.planned_start`.
    fn planned_start_support_wrapper(fcinfo) -> Datum {
        // SAFETY: PostgreSQL calls a support function with one node; a simplify request has the call with its one argument.
        unsafe {
            let request = pgrx::fcinfo::pg_getarg_datum_raw(fcinfo, 0).cast_mut_ptr::<pg_sys::Node>();
            if !pgrx::is_a(request, pg_sys::NodeTag::T_SupportRequestSimplify) {
                return pg_sys::Datum::null();
            }
            let call = (*request.cast::<pg_sys::SupportRequestSimplify>()).fcall;
            let argument = pgrx::PgList::<pg_sys::Node>::from_pg((*call).args).get_ptr(0);
            let bound = argument.and_then(|argument| earliest(argument)).unwrap_or(i64::MIN);
            let value = pg_sys::Datum::from(bound);
            let length = size_of::<i64>() as i32;
            pg_sys::Datum::from(pg_sys::makeConst(pg_sys::TIMESTAMPTZOID, -1, pg_sys::InvalidOid, length, value, false, true))
        }
    }
}

/// A time that the value of an expression cannot precede, now or later; `None` if that is not known. PostgreSQL's microseconds.
///
/// # Safety
/// `node` must be an expression of type timestamptz that the planner has simplified.
unsafe fn earliest(node: *mut pg_sys::Node) -> Option<i64> {
    // SAFETY: the tag of a node says its type.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_Const => {
                let constant = node.cast::<pg_sys::Const>();
                (!(*constant).constisnull).then(|| (*constant).constvalue.value() as i64)
            }
            pg_sys::NodeTag::T_FuncExpr => match (*node.cast::<pg_sys::FuncExpr>()).funcid.to_u32() {
                pg_sys::F_NOW | pg_sys::F_TRANSACTION_TIMESTAMP | pg_sys::F_STATEMENT_TIMESTAMP => {
                    Some(present())
                }
                _ => None,
            },
            pg_sys::NodeTag::T_SQLValueFunction => {
                let function = node.cast::<pg_sys::SQLValueFunction>();
                ((*function).op == pg_sys::SQLValueFunctionOp::SVFOP_CURRENT_TIMESTAMP).then(present)
            }
            pg_sys::NodeTag::T_OpExpr => {
                let operation = node.cast::<pg_sys::OpExpr>();
                let arguments = pgrx::PgList::<pg_sys::Node>::from_pg((*operation).args);
                let (time, length) = (arguments.get_ptr(0)?, arguments.get_ptr(1)?);
                match (*operation).opfuncid.to_u32() {
                    pg_sys::F_TIMESTAMPTZ_PL_INTERVAL => add(earliest(time)?, bounds(interval(length)?)?.0),
                    pg_sys::F_TIMESTAMPTZ_MI_INTERVAL => add(earliest(time)?, -bounds(interval(length)?)?.1),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// The start of the transaction, less the margin: no later plan or execution sees an earlier present.
fn present() -> i64 {
    // SAFETY: reads one variable.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() - CLOCK_MARGIN }
}

/// # Safety
/// As for `earliest`; the second argument of its operators is an interval.
unsafe fn interval(node: *mut pg_sys::Node) -> Option<pg_sys::Interval> {
    // SAFETY: the caller's promise; an interval is passed by reference.
    unsafe {
        let constant = node.cast::<pg_sys::Const>();
        let is_known = pgrx::is_a(node, pg_sys::NodeTag::T_Const) && !(*constant).constisnull;
        is_known.then(|| *(*constant).constvalue.cast_mut_ptr::<pg_sys::Interval>())
    }
}

/// The shortest and the longest time in microseconds that adding an interval can move a time by; `None` for one too long to say.
pub fn bounds(interval: pg_sys::Interval) -> Option<(i64, i64)> {
    let pg_sys::Interval { time, day, month } = interval;
    let small = |units: i32| (-MAX_UNITS..=MAX_UNITS).contains(&units);
    if !small(day) || !small(month) || !(-MAX_TIME..=MAX_TIME).contains(&time) {
        return None;
    }
    let (days, months) = (i64::from(day), i64::from(month));
    let (one, other) = (months * SHORT_MONTH, months * LONG_MONTH);
    let margin = if day == 0 && month == 0 { 0 } else { ZONE_MARGIN };
    let exact = days * DAY + time;
    Some((one.min(other) * DAY + exact - margin, one.max(other) * DAY + exact + margin))
}

/// `None` beyond the range in which TimescaleDB can compare times.
fn add(time: i64, length: i64) -> Option<i64> {
    let sum = time.checked_add(length)?;
    (in_range(sum) == sum).then_some(sum)
}
