//! `ts_replay_page`: some events of a replay, each with a token to continue after it.
//!
//! Modules import only modules that come earlier in this list: `request` and `copy`; `rows`; `gap`; `positions`;
//! `commit_order` and `event_time`.

mod arguments;
pub mod commit_order;
mod copy;
pub mod event_time;
pub mod gap;
mod positions;
pub mod request;
pub mod rewind_check;
pub mod rows;

use pgrx::pg_sys;

use crate::error::{Error, Result, report};
use crate::metrics;
use crate::pg::function::{argument, pg_function, text_argument};
use crate::replay::token::{self, Place, Token};
use crate::session::org_scope;
use crate::shmem::counter::Counter;
pub use arguments::{filter_argument, json_text, page_size, quoted};
use event_time::KeysetStart;
pub use request::read_token;
use request::{ALWAYS, FOREVER, Next, PageRequest};
use rows::Rows;

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
        let org = org_scope::permitted_org(text_argument(fcinfo, 0))?;
        let filter = filter_argument(fcinfo, 5)?;
        let limit = page_size("page_size", argument(fcinfo, 4))?;
        let backward = direction(text_argument(fcinfo, 6))?;
        let signer = token::signer(org)?;
        let after = text_argument(fcinfo, 3).map(|text| read_token(&signer, text)).transpose()?;
        let (start, end) = (argument(fcinfo, 1), argument(fcinfo, 2));
        if after.is_none() {
            crate::replay::check_start(org, start)?;
        }
        let mut request = PageRequest {
            start: start.filter(|start| *start != ALWAYS).map_or(ALWAYS, request::in_range),
            end: end.filter(|end| *end != FOREVER).map_or(FOREVER, request::in_range),
            boundary: after.and_then(|token| token.boundary),
            boundary_at: after.and_then(|token| token.boundary).map(rewind_check::placed_at).transpose()?,
            accounted_until: after.and_then(|token| token.accounted_until).unwrap_or(ALWAYS),
            // After the boundary the reader follows the stream.
            complete: after.is_some_and(|token| token.boundary.is_some()),
            ..PageRequest::of(org, &filter)?
        };
        if let Some(token) = &after {
            rewind_check::check_place(token)?;
        }
        metrics::count(Counter::ReplayPages, 1);
        let mut rows = Rows::new(fcinfo, org, signer);
        fill(&mut request, after, backward, limit, &mut rows)
    }
}

fn fill(
    request: &mut PageRequest<'_>,
    after: Option<Token>,
    backward: bool,
    limit: usize,
    rows: &mut Rows,
) -> Result<()> {
    if let Some(token) = &after
        && let Some(gap) = gap::by_erasure(request, token.place, token.incarnation)?
    {
        if matches!(token.place, Place::Time { .. }) {
            request.account_until(gap.to);
        }
        rows.gap(gap, &request.token(token.place));
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
            commit_order::read(request, Next { seq, offset, placed_ms }, limit, rows).map(drop)
        }
        Some(Place::Time { created_at, id, .. }) if backward => {
            event_time::backward(request, KeysetStart { at: (created_at, id), resumed }, limit, rows)
                .map(drop)
        }
        Some(Place::Time { created_at, id, .. }) => {
            event_time::forward(request, KeysetStart { at: (created_at, id), resumed }, limit, rows).map(drop)
        }
        None if backward => {
            event_time::backward(request, KeysetStart { at: (FOREVER, i64::MAX), resumed }, limit, rows)
                .map(drop)
        }
        None => event_time::forward(request, KeysetStart { at: (ALWAYS, i64::MIN), resumed }, limit, rows)
            .map(drop),
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
