//! `ts_replay_schedule`: a replay with the moment at which each event is to be shown.
//!
//! The function itself is SQL that the planner inlines, so rows stream. What it calls is here: where to begin, what
//! was lost before that, and a window aggregate whose state is the clock of the last row.

mod pace;
mod player;

use pgrx::datum::Interval;
use pgrx::pg_sys;

use super::page::loss;
use super::page::quoted;
use super::page::rows::Rows;
use super::page::scope::{self, ALWAYS, FOREVER, Scope};
use super::token::{self, Place, Token};
use super::{check_start, floor};
use crate::call::{argument, pg_function, text_argument};
use crate::error::{Error, Result, report};
use crate::metrics::{self, counter::Counter};
use crate::replay::filter::Filter;
use crate::session::binding;
use crate::tier::retention;
use pace::Pace;

pg_function! {
    /// `tailstream.schedule_start(org text, start_time timestamptz, after text) → timestamptz`: no event before is read.
    fn schedule_start_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        let (org, start, after) =
            unsafe { (text_argument(fcinfo, 0), argument(fcinfo, 1), text_argument(fcinfo, 2)) };
        pg_sys::Datum::from(report(start_of(org, start, after)))
    }
}

pg_function! {
    /// `tailstream.schedule_time(org text, after text) → timestamptz`: of the event to go on behind.
    fn schedule_time_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        let (org, after) = unsafe { (text_argument(fcinfo, 0), text_argument(fcinfo, 1)) };
        pg_sys::Datum::from(report(token_of(org, after)).map_or(ALWAYS, |token| behind(&token).0))
    }
}

pg_function! {
    /// `tailstream.schedule_id(org text, after text) → bigint`: of the event to go on behind.
    fn schedule_id_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        let (org, after) = unsafe { (text_argument(fcinfo, 0), text_argument(fcinfo, 1)) };
        pg_sys::Datum::from(report(token_of(org, after)).map_or(i64::MIN, |token| behind(&token).1))
    }
}

pg_function! {
    /// `tailstream.schedule_gap(org text, start_time timestamptz, end_time timestamptz, after text,
    /// speed double precision, max_gap interval, max_rate integer)`: checks all arguments, and returns what was lost.
    fn schedule_gap_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments, and to return a set of rows.
        unsafe { report(gap(fcinfo)) };
        pg_sys::Datum::null()
    }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for the function above.
unsafe fn gap(fcinfo: pg_sys::FunctionCallInfo) -> Result<()> {
    // SAFETY: the caller's promise.
    let (org, start, end, after) = unsafe {
        pace(fcinfo, 4)?;
        (text_argument(fcinfo, 0), argument(fcinfo, 1), argument(fcinfo, 2), text_argument(fcinfo, 3))
    };
    let org = binding::permitted_org(org)?;
    let token = token_of(Some(org), after)?;
    if token.is_none() {
        check_start(org, start)?;
    }
    metrics::count(Counter::Replays, 1);
    // SAFETY: as above.
    let mut rows = unsafe { Rows::new(fcinfo, org, token::signer(org)?) };
    let Some(token) = token else { return Ok(()) };
    let everything = Filter::default();
    let scope = Scope {
        start: start.unwrap_or(ALWAYS),
        end: end.unwrap_or(FOREVER),
        floor: floor::at_statement_start(org)?,
        ..Scope::of(org, &everything)?
    };
    let with_clock = |place| Token { clock: token.clock, ..scope.token(place) };
    if let Some(gap) = loss::by_erasure(&scope, &token)? {
        rows.gap(gap, &with_clock(token.place));
    }
    if behind(&token).0.max(scope.start) < scope.floor
        && let Some(gap) = loss::before_floor(&scope, behind(&token))?
    {
        let place = Place::Time { created_at: gap.to.saturating_sub(1), id: i64::MAX, backward: false };
        rows.gap(gap, &with_clock(place));
    }
    Ok(())
}

fn start_of(org: Option<&str>, start: Option<i64>, after: Option<&str>) -> Result<i64> {
    let org = binding::permitted_org(org)?;
    let token = token_of(Some(org), after)?;
    if token.is_none() {
        check_start(org, start)?;
    }
    let from = token.map_or(ALWAYS, |token| behind(&token).0);
    Ok(from.max(start.unwrap_or(ALWAYS)).max(floor::at_statement_start(org)?))
}

/// The token to go on from; one that stands in the order of event times, forward.
fn token_of(org: Option<&str>, after: Option<&str>) -> Result<Option<Token>> {
    let org = binding::permitted_org(org)?;
    let Some(text) = after else { return Ok(None) };
    let token = scope::read_token(&token::signer(org)?, text)?;
    match token.place {
        Place::Time { backward: false, .. } => Ok(Some(token)),
        Place::Time { .. } => Err(Error::OtherDirection("backward")),
        Place::Arrival { .. } => Err(Error::OtherOrder("arrival")),
    }
}

/// Time and id of the event that a token stands behind.
fn behind(token: &Token) -> (i64, i64) {
    match token.place {
        Place::Time { created_at, id, .. } => (created_at, id),
        Place::Arrival { .. } => (ALWAYS, i64::MIN),
    }
}

/// Arguments `first` and following: speed, max_gap, max_rate.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function with these arguments there.
unsafe fn pace(fcinfo: pg_sys::FunctionCallInfo, first: usize) -> Result<Pace> {
    // SAFETY: the caller's promise.
    let (speed, max_gap, max_rate) = unsafe {
        (
            argument::<f64>(fcinfo, first).ok_or(Error::NullArgument("speed"))?,
            argument::<Interval>(fcinfo, first + 1).ok_or(Error::NullArgument("max_gap"))?,
            argument::<i32>(fcinfo, first + 2).ok_or(Error::NullArgument("max_rate"))?,
        )
    };
    let refuse = |what, value: String, hint| Err(Error::BadArgument { what, value, hint });
    if !(speed.is_finite() && speed > 0.0) {
        return refuse("speed", speed.to_string(), "It is a factor greater than 0; 1 plays as it happened.");
    }
    let days = max_gap.days().saturating_add(max_gap.months().saturating_mul(30));
    let micros = retention::microseconds(days, max_gap.micros());
    if micros < 0 {
        return refuse("max_gap", quoted(Some(&max_gap.to_string())), "It is the longest pause, 0 or more.");
    }
    if max_rate < 1 {
        return refuse("max_rate", max_rate.to_string(), "It is a number of events in a second, 1 or more.");
    }
    let min_gap = 1_000_000_000_u32.div_ceil(max_rate.unsigned_abs()).into();
    Ok(Pace { speed, max_gap: micros.saturating_mul(1_000), min_gap })
}
