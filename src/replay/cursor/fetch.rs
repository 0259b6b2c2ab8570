//! `ts_cursor_fetch`: the next events of a durable cursor.

use pgrx::datum::Interval;
use pgrx::{PgMemoryContexts, pg_sys};

use super::store::{self, CursorState, DurableCursor};
use super::wait::FetchTimeout;
use super::{filter_of, order, start_position, valid_name};
use crate::error::{Error, Result, report};
use crate::metrics;
use crate::pg::function::{argument, pg_function, text_argument};
use crate::pg::subtransaction;
use crate::replay::filter::Values;
use crate::replay::page::commit_order;
use crate::replay::page::event_time;
use crate::replay::page::request::{Next, PageRequest};
use crate::replay::page::rows::Rows;
use crate::replay::page::{gap, page_size};
use crate::replay::token::{self, FetchedFrom, Place};
use crate::session::client;
use crate::settings;
use crate::shmem::counter::Counter;

/// How often the use of a cursor that does not move is recorded. In microseconds.
const TOUCH: i64 = 60 * 1_000_000;
/// How many events that do not match the filter may be skipped before the new position is stored.
const FORGETTABLE: u64 = 1_000;

pg_function! {
    /// `ts_cursor_fetch(name text, n integer, timeout interval, auto_ack boolean, nowait boolean, org text)`
    fn ts_cursor_fetch_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments, and to return a set of rows.
        unsafe { report(fetch(fcinfo)) };
        pg_sys::Datum::null()
    }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for the function above.
unsafe fn fetch(fcinfo: pg_sys::FunctionCallInfo) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let name = valid_name(text_argument(fcinfo, 0))?;
        let limit = page_size("n", argument(fcinfo, 1))?;
        let timeout = argument::<Interval>(fcinfo, 2);
        let auto_ack = argument(fcinfo, 3).ok_or(Error::NullArgument("auto_ack"))?;
        let nowait = argument(fcinfo, 4).ok_or(Error::NullArgument("nowait"))?;
        let cursor = store::acquire(name, text_argument(fcinfo, 5), nowait)?;
        metrics::count(Counter::CursorFetches, 1);
        let timeout_left = FetchTimeout::new(&cursor.org, timeout)?;
        let mut rows = Rows::new(fcinfo, &cursor.org, token::signer(&cursor.org)?);
        let read = read(&cursor, limit, timeout_left, &mut rows)?;
        metrics::count(Counter::CursorEvents, read.events as u64);
        settle(&cursor, &read, auto_ack, rows.is_empty())
    }
}

/// The result of a fetch.
struct Read {
    events: usize,
    /// Events that were read, before filtering.
    seen: u64,
    /// Behind all of them.
    state: CursorState,
    /// Whether the use of the cursor must be recorded.
    is_due: bool,
    /// Everything before this place was there to be read; by arrival, if it is due.
    head: Option<Place>,
}

/// Reads the next events, and waits while there are none.
fn read(
    cursor: &DurableCursor,
    limit: usize,
    mut timeout_left: FetchTimeout,
    rows: &mut Rows,
) -> Result<Read> {
    let filter = filter_of(cursor)?;
    let values = Values::of(&filter)?;
    let mut read = Read { events: 0, seen: 0, state: cursor.state, is_due: false, head: None };
    loop {
        timeout_left.listen();
        read.is_due = is_due(cursor);
        let mut memory = PgMemoryContexts::new("tailstream fetch");
        // SAFETY: nothing that a round allocates is used afterwards; rows are copied.
        unsafe {
            memory.switch_to(|_| {
                let round = |read: &mut Read, rows: &mut Rows| {
                    read.head = (read.is_due && cursor.by_arrival)
                        .then(start_position::head)
                        .transpose()?
                        .map(Next::place);
                    let complete = read.head.is_some();
                    let request =
                        PageRequest { complete, ..PageRequest::with(&cursor.org, &filter, values)? };
                    round(cursor, request, limit, read, rows)
                };
                if !timeout_left.may_wait() {
                    return round(&mut read, rows);
                }
                // Releases the locks on the chunks that were read without a result, so that the purge is not blocked.
                subtransaction::run(|| round(&mut read, rows).map(|()| ((), !rows.is_empty())))
            })?;
        }
        if !rows.is_empty() {
            return Ok(read);
        }
        // Recording may have become due during the wait: then it reads once more.
        if !timeout_left.wait()? && (read.is_due || !is_due(cursor)) {
            return Ok(read);
        }
        cursor.check()?;
    }
}

/// Reads once.
fn round(
    cursor: &DurableCursor,
    mut request: PageRequest<'_>,
    limit: usize,
    read: &mut Read,
    rows: &mut Rows,
) -> Result<()> {
    request.accounted_until = read.state.accounted_until;
    request.accounted_until_seq = read.state.accounted_until_seq;
    request.fetched_from = Some(FetchedFrom { cursor: cursor.id, seek_generation: cursor.seek_generation });
    if let Some(gap) = gap::by_erasure(&request, read.state.place, read.state.incarnation)? {
        if !cursor.by_arrival {
            request.account_until(gap.to);
        }
        rows.gap(gap, &request.token(read.state.place));
    }
    match read.state.place {
        Place::Arrival { seq, offset, placed_ms } => {
            let found = commit_order::read(&request, Next { seq, offset, placed_ms }, limit, rows)?;
            (read.events, read.seen) = (found.events, read.seen + found.seen);
            read.state.place = found.next.place();
        }
        Place::Time { created_at, id, .. } => {
            let start = event_time::KeysetStart { at: (created_at, id), resumed: true };
            (read.events, read.state.place) = event_time::forward(&mut request, start, limit, rows)?;
            read.state.accounted_until = request.accounted_until;
        }
    }
    read.state.incarnation = request.incarnation;
    Ok(())
}

/// Moves the cursor if the caller asked for it, or if that skips no event.
fn settle(cursor: &DurableCursor, read: &Read, auto_ack: bool, nothing: bool) -> Result<()> {
    let mut state = if auto_ack || nothing { read.state } else { cursor.state };
    if nothing
        && let Some(head) = read.head
        && order(head) > order(state.place)
    {
        // The cursor of a quiet org must not fall behind the positions that are kept.
        state.place = head;
    }
    // SAFETY: reads one variable.
    let may_write = !unsafe { pg_sys::XactReadOnly };
    let moves = auto_ack && !nothing;
    if moves {
        // Nothing is acknowledged for a client that has disconnected.
        client::require()?;
    }
    // Skipped events need not be stored each time; they are skipped again.
    if moves || may_write && (read.is_due || nothing && read.seen > FORGETTABLE) {
        cursor.move_to(state)?;
    }
    Ok(())
}

/// Whether the last recorded use of the cursor is too long ago.
fn is_due(cursor: &DurableCursor) -> bool {
    let kept = settings::cursor_ttl();
    let touch = if kept > 0 { TOUCH.min(kept / 10) } else { TOUCH };
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    now - cursor.last_active > touch
}
