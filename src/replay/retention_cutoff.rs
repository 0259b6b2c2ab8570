//! The retention cutoff of an org, as a filter for rows and as a check of a replay's start.

use pgrx::{IntoDatum, pg_sys, varlena};

use crate::error::{Error, Result, report};
use crate::metrics;
use crate::pg::function::{pg_function, text_argument};
use crate::pg::time;
use crate::session::org_scope;
use crate::shmem::counter::Counter;
use crate::tier::{cache, retention};

/// A replay may start this much before the cutoff, in microseconds, because clocks differ and requests take time.
const GRACE: i64 = 60 * 1_000_000;

/// The cutoff for a session that is bound to another org: later than every event.
const NEVER: i64 = i64::MAX;

/// Longest org id in bytes: 255 characters.
const MAX_ORG_BYTES: usize = 255 * 4;

/// The last result, stored with the function call in the plan. Consecutive rows mostly have the same org, so a scan needs one
/// look-up and not one for each row.
struct Answer {
    generation: u64,
    statement: i64,
    cutoff: i64,
    length: usize,
    org: [u8; MAX_ORG_BYTES],
}

impl Answer {
    fn cutoff_of(&self, org: &[u8]) -> Option<i64> {
        let current = self.generation == cache::generation() && self.statement == time::statement_start();
        (current && self.org.get(..self.length) == Some(org)).then_some(self.cutoff)
    }

    fn take(&mut self, org: &[u8], statement: i64, generation: u64, cutoff: i64) {
        if let Some(kept) = self.org.get_mut(..org.len()) {
            kept.copy_from_slice(org);
            self.length = org.len();
            (self.statement, self.generation, self.cutoff) = (statement, generation, cutoff);
        }
    }
}

pg_function! {
    /// `tailstream.retention_floor(org_id text) → timestamptz`
    fn retention_floor_wrapper(fcinfo) -> Datum {
        // SAFETY: PostgreSQL calls this with one text argument that is not NULL (STRICT).
        pg_sys::Datum::from(unsafe { known_cutoff(fcinfo).unwrap_or_else(|| look_up_cutoff(fcinfo)) })
    }
}

pg_function! {
    /// `tailstream.is_retained(org_id text, created_at timestamptz) → boolean`, called for every row of a replay.
    fn is_retained_wrapper(fcinfo) -> Datum
    unless {
        // SAFETY: PostgreSQL calls this with a text and a timestamptz that are not NULL (STRICT).
        unsafe { known_cutoff(fcinfo).map(|cutoff| pg_sys::Datum::from(time_argument(fcinfo) >= cutoff)) }
    }
    {
        // SAFETY: as above.
        unsafe { pg_sys::Datum::from(time_argument(fcinfo) >= look_up_cutoff(fcinfo)) }
    }
}

/// The second argument, a time.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, with a timestamptz that is not NULL as its second argument.
#[inline]
unsafe fn time_argument(fcinfo: pg_sys::FunctionCallInfo) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { pgrx::fcinfo::pg_getarg_datum_raw(fcinfo, 1) }.value() as i64
}

pg_function! {
    /// Tells the planner that `is_retained` is true for nearly all rows, because the others are purged. With its default, a third,
    /// the planner would sort rows that the index returns in order.
    fn is_retained_support_wrapper(fcinfo) -> Datum {
        // SAFETY: PostgreSQL calls a support function with one node, which it returns if it has set a result.
        unsafe {
            let request = pgrx::fcinfo::pg_getarg_datum_raw(fcinfo, 0).cast_mut_ptr::<pg_sys::Node>();
            if !pgrx::is_a(request, pg_sys::NodeTag::T_SupportRequestSelectivity) {
                return pg_sys::Datum::null();
            }
            (*request.cast::<pg_sys::SupportRequestSelectivity>()).selectivity = 0.999;
            pg_sys::Datum::from(request)
        }
    }
}

/// The stored cutoff, if it is that of the org in the first argument.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, with a text that is not NULL as its first argument, for a
/// function of this module.
#[inline]
unsafe fn known_cutoff(fcinfo: pg_sys::FunctionCallInfo) -> Option<i64> {
    // SAFETY: the caller's promise; `fn_extra` is ours, and a value with an ordinary header is read in place.
    unsafe {
        let answer = (*fcinfo).flinfo.as_ref()?.fn_extra.cast::<Answer>().as_ref()?;
        let org = pgrx::fcinfo::pg_getarg_datum_raw(fcinfo, 0).cast_mut_ptr::<pg_sys::varlena>();
        let short = varlena::varatt_is_1b(org) && !varlena::varatt_is_1b_e(org);
        if !short && !varlena::varatt_is_4b_u(org) {
            return None;
        }
        let length = varlena::varsize_any_exhdr(org);
        answer.cutoff_of(std::slice::from_raw_parts(varlena::vardata_any(org).cast::<u8>(), length))
    }
}

/// Looks the cutoff up and stores it.
///
/// # Safety
/// As for `known_cutoff`.
#[cold]
unsafe fn look_up_cutoff(fcinfo: pg_sys::FunctionCallInfo) -> i64 {
    // SAFETY: the caller's promise; the memory lives as long as the function call in the plan.
    unsafe {
        let org = text_argument(fcinfo, 0).unwrap_or_default();
        let (generation, statement) = (cache::generation(), time::statement_start());
        let cutoff = report(visible_cutoff(org, statement));
        if let Some(function) = (*fcinfo).flinfo.as_mut() {
            if function.fn_extra.is_null() {
                function.fn_extra = pg_sys::MemoryContextAllocZero(function.fn_mcxt, size_of::<Answer>());
            }
            (*function.fn_extra.cast::<Answer>()).take(org.as_bytes(), statement, generation, cutoff);
        }
        cutoff
    }
}

fn visible_cutoff(org: &str, statement: i64) -> Result<i64> {
    match org_scope::require_org(org) {
        Ok(()) => Ok(statement - retention_of(org)?),
        Err(_) => Ok(NEVER),
    }
}

/// In microseconds. An org that is not registered has that of the default tier.
pub(super) fn retention_of(org: &str) -> Result<i64> {
    Ok(match cache::tier_of(org)? {
        Some(tier) => tier.retention,
        None => cache::default_tier()?.retention,
    })
}

pg_function! {
    /// `tailstream.replay_floor(org_id text, start_time timestamptz) → timestamptz`. Called
    /// once for each index scan that it bounds, and for every row of a sequential scan.
    fn replay_floor_wrapper(fcinfo) -> Datum
    unless {
        // SAFETY: PostgreSQL calls this with a text and a timestamptz that are not NULL (STRICT).
        unsafe { known_cutoff(fcinfo).filter(|cutoff| may_start(time_argument(fcinfo), *cutoff)).map(pg_sys::Datum::from) }
    }
    {
        // SAFETY: as above.
        let (org, start) = unsafe { (text_argument(fcinfo, 0), time_argument(fcinfo)) };
        report(org_scope::permitted_org(org).and_then(|org| check_start(org, Some(start))));
        metrics::count(Counter::Replays, 1);
        // SAFETY: as above.
        pg_sys::Datum::from(unsafe { look_up_cutoff(fcinfo) })
    }
}

fn may_start(start: i64, cutoff: i64) -> bool {
    start >= cutoff.saturating_sub(GRACE)
}

/// Error unless a replay of the org may start at this time; `None` means the cutoff.
pub(super) fn check_start(org: &str, start: Option<i64>) -> Result<()> {
    let Some(start) = start else { return Ok(()) };
    let kept = retention_of(org)?;
    let cutoff = time::statement_start() - kept;
    if may_start(start, cutoff) {
        return Ok(());
    }
    Err(Error::BeforeRetention {
        org: org.to_owned(),
        start: in_session_format(start),
        retention: retention::in_words(kept),
        earliest: in_session_format(cutoff),
    })
}

/// A time in the session's DateStyle and TimeZone.
fn in_session_format(time: i64) -> String {
    // SAFETY: timestamptz_out takes one timestamptz and returns a C string.
    let text = unsafe {
        pgrx::direct_function_call::<&core::ffi::CStr>(pg_sys::timestamptz_out, &[time.into_datum()])
    };
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
