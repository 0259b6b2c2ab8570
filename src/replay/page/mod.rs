//! `ts_replay_page`: some events of a replay, each with a token to go on behind it.

mod arguments;
pub mod arrival;
pub mod loss;
pub mod rows;
pub mod scope;
pub mod time;

use pgrx::pg_sys;

use crate::call::{argument, pg_function, text_argument};
use crate::error::{Error, Result, report};
use crate::metrics::{self, counter::Counter};
use crate::replay::filter::Filter;
use crate::replay::token::{self, Place, Token};
use crate::session::binding;
pub use arguments::{filter_argument, page_size, quoted};
use arrival::Next;
use rows::Rows;
use scope::{ALWAYS, FOREVER, Scope};
use time::Start;

pg_function! {
    /// `ts_replay_page(org text, start_time timestamptz, end_time timestamptz, after text, page_size integer,
    /// filter jsonb, direction text)`
    fn ts_replay_page_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments, and to return a set of rows.
        unsafe { report(page(fcinfo)) };
        pg_sys::Datum::null()
    }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for the function above.
unsafe fn page(fcinfo: pg_sys::FunctionCallInfo) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let org = binding::permitted_org(text_argument(fcinfo, 0))?;
        let filter = filter_argument(fcinfo, 5)?;
        let limit = page_size("page_size", argument(fcinfo, 4))?;
        let backward = direction(text_argument(fcinfo, 6))?;
        let signer = token::signer(org)?;
        let after = text_argument(fcinfo, 3).map(|text| scope::read_token(&signer, text)).transpose()?;
        let (start, end) = (argument(fcinfo, 1), argument(fcinfo, 2));
        let scope = scope(org, &filter, start, end, after)?;
        if after.is_none() {
            crate::replay::check_start(org, start)?;
        }
        metrics::count(Counter::ReplayPages, 1);
        let mut rows = Rows::new(fcinfo, org, signer);
        fill(&scope, after, backward, limit, &mut rows)
    }
}

fn scope<'a>(
    org: &'a str,
    filter: &'a Filter,
    start: Option<i64>,
    end: Option<i64>,
    after: Option<Token>,
) -> Result<Scope<'a>> {
    Ok(Scope {
        start: start.unwrap_or(ALWAYS),
        end: end.unwrap_or(FOREVER),
        boundary: after.and_then(|token| token.boundary),
        ..Scope::of(org, filter)?
    })
}

fn fill(
    scope: &Scope<'_>,
    after: Option<Token>,
    backward: bool,
    limit: usize,
    rows: &mut Rows,
) -> Result<()> {
    if let Some(token) = &after
        && let Some(gap) = loss::by_erasure(scope, token)?
    {
        rows.gap(gap, &scope.token(token.place));
    }
    let resumed = after.is_some();
    match after.map(|token| token.place) {
        Some(Place::Time { backward: other, .. }) if other != backward => {
            Err(Error::OtherDirection(if other { "backward" } else { "forward" }))
        }
        Some(Place::Arrival { .. }) if backward => Err(Error::OtherDirection("forward")),
        Some(Place::Arrival { seq, offset, placed_ms }) => {
            arrival::read(scope, Next { seq, offset, placed_ms }, limit, rows).map(drop)
        }
        None if backward => {
            time::backward(scope, Start { at: (FOREVER, i64::MAX), resumed }, limit, rows).map(drop)
        }
        Some(Place::Time { created_at, id, .. }) if backward => {
            time::backward(scope, Start { at: (created_at, id), resumed }, limit, rows).map(drop)
        }
        None => time::forward(scope, Start { at: (ALWAYS, i64::MIN), resumed }, limit, rows).map(drop),
        Some(Place::Time { created_at, id, .. }) => {
            time::forward(scope, Start { at: (created_at, id), resumed }, limit, rows).map(drop)
        }
    }
}

fn direction(name: Option<&str>) -> Result<bool> {
    match name {
        Some("forward") => Ok(false),
        Some("backward") => Ok(true),
        other => Err(Error::BadArgument {
            what: "direction",
            value: quoted(other),
            hint: "It is 'forward' or 'backward'.",
        }),
    }
}
