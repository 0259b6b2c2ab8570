//! `ts_replay_schedule`: a replay with the time at which each event is to be shown.
//!
//! It reads pages, one after the other, as rows are requested; only the clock is carried from one page to the next. It therefore
//! streams under any plan. A row's token is that of its page with the clock added.

mod pace;

use core::ffi::CStr;
use std::mem::ManuallyDrop;

use pgrx::datum::Interval;
use pgrx::pg_sys::BuiltinOid::{INT4OID, JSONBOID, TEXTOID, TIMESTAMPTZOID};
use pgrx::{IntoDatum, PgMemoryContexts, fcinfo, pg_sys};

use super::page::{quoted, read_token};
use super::token::{self, Clock, Place, Signer, Token};
use crate::error::{Error, Result, report};
use crate::metrics;
use crate::pg::function::{argument, pg_function, text_argument};
use crate::pg::streaming::{SlotRow, StreamingStatement, Visibility};
use crate::session::org_scope;
use crate::shmem::counter::Counter;
use crate::tier::retention;
use pace::Pace;

/// Events per page.
const PAGE: usize = 1_000;
/// The columns of a page, and the time.
const COLUMNS: usize = 19;
const CREATED_AT: usize = 1;
const CURSOR: usize = 13;
const KIND: usize = 14;
const PLAY_AT: usize = 18;

thread_local! {
    static PAGES: StreamingStatement = const { StreamingStatement::new(
        "SELECT * FROM tailstream.page($1, $2, $3, $4, $5, $6)",
        &[TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT4OID, JSONBOID]) };
}

pg_function! {
    /// `tailstream.play(org text, start_time timestamptz, end_time timestamptz, speed double precision, max_gap interval,
    /// max_rate integer, after text, filter jsonb)`: a row at each call.
    fn play_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments, and to return a set; the protocol of such functions.
        unsafe {
            if fcinfo::srf_is_first_call(fcinfo) {
                let call = pg_sys::init_MultiFuncCall(fcinfo);
                let mut memory = PgMemoryContexts::For((*call).multi_call_memory_ctx);
                let player = memory.switch_to(|_| Player::new(fcinfo));
                (*call).user_fctx = memory.leak_and_drop_on_delete(report(player)).cast();
            }
            let call = pg_sys::per_MultiFuncCall(fcinfo);
            let player = &mut *(*call).user_fctx.cast::<Player>();
            match report(player.next()) {
                Some(row) => {
                    fcinfo::srf_return_next(fcinfo, call);
                    row
                }
                None => {
                    fcinfo::srf_return_done(fcinfo, call);
                    fcinfo::pg_return_null(fcinfo)
                }
            }
        }
    }
}

/// The state of a playback.
struct Player {
    descriptor: pg_sys::TupleDesc,
    signer: Signer,
    /// The request without its token. Lives as long as the playback.
    arguments: [Option<pg_sys::Datum>; 6],
    after: Option<String>,
    pace: Pace,
    clock: Clock,
    /// The time of the last event; `None` before the first one.
    last: Option<i64>,
    /// The rows of a page, and their memory. Values that are stored out of line are fetched when a row is returned.
    rows: std::vec::IntoIter<pg_sys::HeapTuple>,
    /// A child of the playback's memory context, freed with it.
    memory: ManuallyDrop<PgMemoryContexts>,
    is_last: bool,
}

impl Player {
    /// Checks the arguments. The current memory context must live as long as the playback.
    ///
    /// # Safety
    /// `fcinfo` must come from PostgreSQL, for the function above.
    unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let org = org_scope::permitted_org(text_argument(fcinfo, 0))?;
            let pace = pace(fcinfo, 3)?;
            let signer = token::signer(org)?;
            let after = text_argument(fcinfo, 6).map(str::to_owned);
            let token = after.as_deref().map(|text| read_token(&signer, text)).transpose()?;
            let (clock, last) = match token.map(|token| (token.place, token.clock)) {
                Some((Place::Arrival { .. }, _)) => return Err(Error::OtherOrder("arrival")),
                Some((Place::Time { created_at, .. }, Some(clock))) => (clock, Some(created_at)),
                _ => (Clock::default(), None),
            };
            metrics::count(Counter::Replays, 1);
            let mut descriptor = std::ptr::null_mut();
            pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            let filter = fcinfo::pg_getarg_datum(fcinfo, 7);
            let filter = filter.map(|value| pg_sys::pg_detoast_datum_copy(value.cast_mut_ptr()).into());
            let (start, end) = (fcinfo::pg_getarg_datum(fcinfo, 1), fcinfo::pg_getarg_datum(fcinfo, 2));
            let limit = Some(pg_sys::Datum::from(PAGE as i32));
            Ok(Self {
                descriptor: pg_sys::BlessTupleDesc(descriptor),
                signer,
                arguments: [org.into_datum(), start, end, None, limit, filter],
                after,
                pace,
                clock,
                last,
                rows: Vec::new().into_iter(),
                memory: ManuallyDrop::new(PgMemoryContexts::new("tailstream schedule")),
                is_last: false,
            })
        }
    }

    fn next(&mut self) -> Result<Option<pg_sys::Datum>> {
        loop {
            if let Some(row) = self.rows.next() {
                // SAFETY: a row of this descriptor in the page's memory; values are fetched into the caller's memory.
                return Ok(Some(unsafe { pg_sys::HeapTupleHeaderGetDatum((*row).t_data) }));
            }
            if self.is_last {
                return Ok(None);
            }
            self.read()?;
        }
    }

    /// Reads the next page.
    fn read(&mut self) -> Result<()> {
        // SAFETY: all rows in it were returned and consumed.
        unsafe { self.memory.reset() };
        let mut arguments = self.arguments;
        arguments[3] = self.after.as_deref().and_then(IntoDatum::into_datum);
        let (mut rows, mut events, mut failed) = (Vec::new(), 0, None);
        let take = |row: SlotRow<'_>| {
            let is_event = row.text(KIND) == Some("event");
            events += usize::from(is_event);
            match self.row(&row, is_event) {
                Ok(row) => rows.push(row),
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        };
        PAGES.with(|pages| pages.each(arguments, Visibility::NewSnapshot, take))?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.is_last = events < PAGE;
        self.rows = rows.into_iter();
        Ok(())
    }

    /// A row of a page with the time at which to show it, and the clock in its token.
    fn row(&mut self, row: &SlotRow<'_>, is_event: bool) -> Result<pg_sys::HeapTuple> {
        if is_event {
            let created_at = row.int8(CREATED_AT).unwrap_or_default();
            if let Some(before) = self.last {
                self.clock = self.pace.next(self.clock, created_at.saturating_sub(before));
            }
            self.last = Some(created_at);
        }
        let token = read_token(&self.signer, row.text(CURSOR).unwrap_or_default())?;
        let clock = self.last.map(|_| self.clock);
        let text = self.signer.text(&Token { clock, ..token });
        let play_at = Interval::new(0, 0, self.clock.shown / 1_000)
            .map_err(|_| Error::Internal("a moment out of range"))?;
        // SAFETY: values of the descriptor's columns; the row is kept in the page's memory.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.memory.value());
            let value = |column| match column {
                CURSOR => text.as_str().into_datum(),
                PLAY_AT if is_event => play_at.into_datum(),
                PLAY_AT => None,
                _ => row.datum(column),
            };
            let values: [Option<pg_sys::Datum>; COLUMNS] = std::array::from_fn(value);
            let mut nulls = values.map(|value| value.is_none());
            let mut values = values.map(|value| value.unwrap_or(pg_sys::Datum::null()));
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::MemoryContextSwitchTo(before);
            self.after = Some(text);
            Ok(tuple)
        }
    }
}

/// The arguments from `first`: speed, max_gap, max_rate.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function with these arguments there.
unsafe fn pace(fcinfo: pg_sys::FunctionCallInfo, first: usize) -> Result<Pace> {
    // SAFETY: the caller's promise; interval_out takes an interval and returns a C string.
    let (speed, max_gap, written, max_rate) = unsafe {
        (
            argument::<f64>(fcinfo, first).ok_or(Error::NullArgument("speed"))?,
            argument::<Interval>(fcinfo, first + 1).ok_or(Error::NullArgument("max_gap"))?,
            pgrx::direct_function_call::<&CStr>(
                pg_sys::interval_out,
                &[fcinfo::pg_getarg_datum(fcinfo, first + 1)],
            ),
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
        let written = written.map(|text| text.to_string_lossy().into_owned());
        return refuse("max_gap", quoted(written.as_deref()), "It is the longest pause, 0 or more.");
    }
    if max_rate < 1 {
        return refuse("max_rate", max_rate.to_string(), "It is a number of events in a second, 1 or more.");
    }
    let min_gap = 1_000_000_000_u32.div_ceil(max_rate.unsigned_abs()).into();
    Ok(Pace { speed, max_gap: micros.saturating_mul(1_000), min_gap })
}
