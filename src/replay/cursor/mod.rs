//! Durable cursors: positions in an org's events that are stored in the database and move in the caller's transaction.

mod fetch;
pub mod start_position;
mod store;
mod wait;

use pgrx::pg_sys;

use crate::error::{Error, Result, report};
use crate::locks;
use crate::metrics;
use crate::pg::function::{argument, pg_function, text_argument};
use crate::pg::object_lock::Acquired;
use crate::replay::filter::Filter;
use crate::replay::page::{filter_argument, quoted};
use crate::replay::page::{request, rewind_check};
use crate::replay::token::{self, Place};
use crate::session::org_scope;
use crate::settings;
use start_position::StartPosition;
use store::CursorState;

const MAX_NAME: usize = 255;

pg_function! {
    /// `ts_cursor_create(name text, org text, start text, filter jsonb, order_by text)`
    fn ts_cursor_create_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        unsafe { report(start_text(fcinfo, 2).and_then(|start| create(fcinfo, &start))) };
        pg_sys::Datum::null()
    }
}

pg_function! {
    /// The same with `start timestamptz`.
    fn ts_cursor_create_at_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        unsafe { report(start_time(fcinfo, 2).and_then(|start| create(fcinfo, &start))) };
        pg_sys::Datum::null()
    }
}

pg_function! {
    /// `ts_cursor_ack(name text, token text, org text) → boolean`
    fn ts_cursor_ack_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        unsafe {
            let (name, token, org) = (text_argument(fcinfo, 0), text_argument(fcinfo, 1), text_argument(fcinfo, 2));
            pg_sys::Datum::from(report(ack(name, token, org)))
        }
    }
}

pg_function! {
    /// `ts_cursor_seek(name text, start text, org text)`
    fn ts_cursor_seek_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        unsafe { report(start_text(fcinfo, 1).and_then(|start| seek(fcinfo, &start))) };
        pg_sys::Datum::null()
    }
}

pg_function! {
    /// The same with `start timestamptz`.
    fn ts_cursor_seek_at_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        unsafe { report(start_time(fcinfo, 1).and_then(|start| seek(fcinfo, &start))) };
        pg_sys::Datum::null()
    }
}

pg_function! {
    /// `ts_cursor_drop(name text, org text)`
    fn ts_cursor_drop_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        let (name, org) = unsafe { (text_argument(fcinfo, 0), text_argument(fcinfo, 1)) };
        report(valid_name(name).and_then(|name| store::acquire_any(name, org)?.drop()));
        pg_sys::Datum::null()
    }
}

/// `tailstream.try_lock_cursor(cursor_id bigint) → boolean`
#[pgrx::pg_extern(sql = false)]
fn try_lock_cursor(cursor_id: i64) -> bool {
    report(locks::cursor(cursor_id, true)) != Acquired::No
}

unsafe fn start_text<'a>(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Result<StartPosition<'a>> {
    // SAFETY: the caller's promise: argument `index` is a text.
    unsafe { text_argument(fcinfo, index) }.map(StartPosition::Text).ok_or(Error::NullArgument("start"))
}

unsafe fn start_time<'a>(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Result<StartPosition<'a>> {
    // SAFETY: the caller's promise: argument `index` is a timestamptz.
    unsafe { argument::<i64>(fcinfo, index) }.map(StartPosition::Time).ok_or(Error::NullArgument("start"))
}

fn valid_name(name: Option<&str>) -> Result<&str> {
    let name = name.ok_or(Error::NullArgument("name"))?;
    match name.chars().take(MAX_NAME + 1).count() {
        1..=MAX_NAME => Ok(name),
        _ => Err(Error::BadArgument {
            what: "name",
            value: quoted(Some(name)),
            hint: "A cursor's name has 1 to 255 characters.",
        }),
    }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for ts_cursor_create.
unsafe fn create(fcinfo: pg_sys::FunctionCallInfo, start: &StartPosition<'_>) -> Result<()> {
    // SAFETY: the caller's promise.
    let (name, org, filter, order) = unsafe {
        (
            text_argument(fcinfo, 0),
            text_argument(fcinfo, 1),
            filter_argument(fcinfo, 3)?,
            text_argument(fcinfo, 4),
        )
    };
    let (name, org) = (valid_name(name)?, org_scope::permitted_org(org)?);
    store::require_primary()?;
    let by_arrival = match order {
        Some("arrival") => true,
        Some("event_time") => false,
        other => {
            let hint = "It is 'arrival' or 'event_time'.";
            return Err(Error::BadArgument { what: "order_by", value: quoted(other), hint });
        }
    };
    if by_arrival {
        metrics::workers_here()?;
    }
    let initial = start.find(org, by_arrival)?;
    match store::peek(name, org)? {
        Some(old) if old.has_expired() => match store::acquire_any(name, Some(org)) {
            // Another transaction may have used, dropped or created the cursor during the wait.
            Ok(old) if old.has_expired() => old.drop()?,
            Ok(_) => return Err(exists(name, org)),
            Err(Error::NoCursor(_)) => {}
            Err(error) => return Err(error),
        },
        Some(_) => return Err(exists(name, org)),
        None => {}
    }
    let most = settings::max_cursors_per_org();
    if most > 0 {
        locks::creating_cursor(org)?;
        if store::count(org, most)? >= most {
            return Err(Error::TooManyCursors { org: org.to_owned(), most });
        }
    }
    if store::create(name, org, by_arrival, filter.text(), initial)? {
        Ok(())
    } else {
        Err(exists(name, org))
    }
}

fn exists(name: &str, org: &str) -> Error {
    Error::CursorExists { name: name.to_owned(), org: org.to_owned() }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for ts_cursor_seek.
unsafe fn seek(fcinfo: pg_sys::FunctionCallInfo, start: &StartPosition<'_>) -> Result<()> {
    // SAFETY: the caller's promise.
    let (name, org) = unsafe { (text_argument(fcinfo, 0), text_argument(fcinfo, 2)) };
    let cursor = store::acquire(valid_name(name)?, org, false)?;
    cursor.seek(start.find(&cursor.org, cursor.by_arrival)?)
}

/// Whether the cursor moved.
fn ack(name: Option<&str>, token: Option<&str>, org: Option<&str>) -> Result<bool> {
    let token = token.ok_or(Error::NullArgument("token"))?;
    let cursor = store::acquire(valid_name(name)?, org, false)?;
    let token = request::read_token(&token::signer(&cursor.org)?, token)?;
    match token.fetched_from {
        Some(fetched_from) if fetched_from.cursor != cursor.id => {
            return Err(Error::OtherCursor(cursor.name));
        }
        None => return Err(Error::OtherCursor(cursor.name)),
        Some(fetched_from) if fetched_from.seek_generation != cursor.seek_generation => {
            return Err(Error::CursorMoved(cursor.name));
        }
        Some(_) => {}
    }
    let state = cursor.state;
    let accounted_until = token
        .accounted_until
        .map_or(state.accounted_until, |accounted_until| accounted_until.max(state.accounted_until));
    let acknowledged =
        CursorState { place: token.place, accounted_until, incarnation: token.incarnation, ..state };
    // After a gap the place may be the same. Then the reported time decides.
    let is_ahead = (order(token.place), accounted_until) > (order(state.place), state.accounted_until)
        || order(token.place) == order(state.place) && token.incarnation != state.incarnation;
    if is_ahead {
        rewind_check::check_place(&token)?;
        cursor.move_to(acknowledged)?;
    }
    Ok(is_ahead)
}

/// A key that orders the places of one cursor.
fn order(place: Place) -> (i64, i64) {
    match place {
        Place::Time { created_at, id, .. } => (created_at, id),
        Place::Arrival { seq, offset, .. } => (seq, offset.into()),
    }
}

fn filter_of(cursor: &store::DurableCursor) -> Result<Filter> {
    cursor.filter.as_deref().map_or(Ok(Filter::default()), Filter::parse)
}
