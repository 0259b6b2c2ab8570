//! `ts_replay_page`: some events of a replay, each with a token to go on behind it.

mod arguments;
pub mod arrival;
mod copy;
pub mod loss;
pub mod moment;
mod positions;
pub mod rows;
pub mod scope;
pub mod time;

use pgrx::pg_sys;

use crate::call::{argument, pg_function, text_argument};
use crate::error::{Error, Result, report};
use crate::metrics::{self, counter::Counter};
use crate::replay::token::{self, Place, Token};
use crate::session::binding;
pub use arguments::{filter_argument, json_text, page_size, quoted};
use arrival::Next;
use rows::Rows;
pub use scope::read_token;
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
        let after = text_argument(fcinfo, 3).map(|text| read_token(&signer, text)).transpose()?;
        let (start, end) = (argument(fcinfo, 1), argument(fcinfo, 2));
        if after.is_none() {
            crate::replay::check_start(org, start)?;
        }
        let mut scope = Scope {
            start: start.filter(|start| *start != ALWAYS).map_or(ALWAYS, scope::in_range),
            end: end.filter(|end| *end != FOREVER).map_or(FOREVER, scope::in_range),
            boundary: after.and_then(|token| token.boundary),
            boundary_at: after.and_then(|token| token.boundary).map(moment::placed_at).transpose()?,
            reach: after.and_then(|token| token.reach).unwrap_or(ALWAYS),
            // From there on the reader follows the stream.
            complete: after.is_some_and(|token| token.boundary.is_some()),
            ..Scope::of(org, &filter)?
        };
        if let Some(token) = &after {
            moment::check_place(token)?;
        }
        metrics::count(Counter::ReplayPages, 1);
        let mut rows = Rows::new(fcinfo, org, signer);
        fill(&mut scope, after, backward, limit, &mut rows)
    }
}

fn fill(
    scope: &mut Scope<'_>,
    after: Option<Token>,
    backward: bool,
    limit: usize,
    rows: &mut Rows,
) -> Result<()> {
    if let Some(token) = &after
        && let Some(gap) = loss::by_erasure(scope, token.place, token.life)?
    {
        if matches!(token.place, Place::Time { .. }) {
            scope.tell(gap.to);
        }
        rows.gap(gap, &scope.token(token.place));
    }
    let place = after.map(|token| token.place);
    match place {
        Some(Place::Time { backward: true, .. }) if !backward => {
            return Err(Error::OtherDirection("backward"));
        }
        Some(Place::Time { backward: false, .. } | Place::Arrival { .. }) if backward => {
            return Err(Error::OtherDirection("forward"));
        }
        _ => {}
    }
    let resumed = after.is_some();
    match place {
        Some(Place::Arrival { seq, offset, placed_ms }) => {
            arrival::read(scope, Next { seq, offset, placed_ms }, limit, rows).map(drop)
        }
        Some(Place::Time { created_at, id, .. }) if backward => {
            time::backward(scope, Start { at: (created_at, id), resumed }, limit, rows).map(drop)
        }
        Some(Place::Time { created_at, id, .. }) => {
            time::forward(scope, Start { at: (created_at, id), resumed }, limit, rows).map(drop)
        }
        None if backward => {
            time::backward(scope, Start { at: (FOREVER, i64::MAX), resumed }, limit, rows).map(drop)
        }
        None => time::forward(scope, Start { at: (ALWAYS, i64::MIN), resumed }, limit, rows).map(drop),
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
