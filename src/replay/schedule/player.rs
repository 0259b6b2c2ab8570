//! The window aggregate `tailstream.play`: one row after the other, each with the moment to show it and its token.

use pgrx::datum::Interval;
use pgrx::{IntoDatum, pg_sys};

use super::pace::Pace;
use super::{behind, pace, token_of};
use crate::call::{argument, composite_result, pg_function, text_argument};
use crate::error::{Error, Result, report};
use crate::replay::page::scope;
use crate::replay::token::{self, Clock, MAX_TEXT, Place, Signer, Token};
use crate::session::binding;

/// Argument of the transition function that its own arguments follow: the state.
const FIRST: usize = 1;

/// The state of the aggregate. Nothing in it needs to be dropped: it goes with its memory context.
struct Player {
    pace: Pace,
    signer: Signer,
    life: u32,
    clock: Clock,
    /// Time and id of the last event; `None` before the first one of all.
    last: Option<(i64, i64)>,
}

pg_function! {
    /// `tailstream.play_next(state internal, created_at timestamptz, id bigint, org text, after text,
    /// speed double precision, max_gap interval, max_rate integer) → internal`
    fn play_next_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments.
        unsafe { report(next(fcinfo)) }
    }
}

pg_function! {
    /// `tailstream.play_result(state internal) → tailstream.played`
    fn play_result_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with this argument and result.
        unsafe { report(result(fcinfo)) }
    }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for the transition function.
unsafe fn next(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; the state is what this function returned for the row before.
    unsafe {
        let mut memory = std::ptr::null_mut();
        if pg_sys::AggCheckCallContext(fcinfo, &mut memory) == 0 {
            return Err(Error::Internal("tailstream.play is a window aggregate"));
        }
        let mut state = pgrx::fcinfo::pg_getarg_datum_raw(fcinfo, 0).cast_mut_ptr::<Player>();
        if pgrx::fcinfo::pg_arg_is_null(fcinfo, 0) {
            state = pg_sys::MemoryContextAlloc(memory, size_of::<Player>()).cast();
            state.write(Player::new(fcinfo)?);
        }
        let created_at = argument(fcinfo, FIRST).ok_or(Error::NullArgument("created_at"))?;
        let id = argument(fcinfo, FIRST + 1).ok_or(Error::NullArgument("id"))?;
        (*state).play(created_at, id);
        Ok(pg_sys::Datum::from(state))
    }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for the final function.
unsafe fn result(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; there is a state, for the frame has the current row in it.
    let state = unsafe { pgrx::fcinfo::pg_getarg_datum_raw(fcinfo, 0).cast_mut_ptr::<Player>().as_ref() };
    let state = state.ok_or(Error::Internal("a window without rows"))?;
    let play_at = Interval::new(0, 0, state.clock.shown / 1_000)
        .map_err(|_| Error::Internal("a moment out of range"))?
        .into_datum();
    let cursor = state.signer.write(&state.token(), &mut [0; MAX_TEXT]).into_datum();
    let (Some(play_at), Some(cursor)) = (play_at, cursor) else {
        return Err(Error::Internal("a value without datum"));
    };
    // SAFETY: declared to return these two columns.
    Ok(unsafe { composite_result(fcinfo, &mut [play_at, cursor]) })
}

impl Player {
    /// # Safety
    /// `fcinfo` must come from PostgreSQL, for the transition function.
    unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self> {
        // SAFETY: the caller's promise.
        let (org, after, pace) = unsafe {
            (text_argument(fcinfo, FIRST + 2), text_argument(fcinfo, FIRST + 3), pace(fcinfo, FIRST + 4)?)
        };
        let org = binding::permitted_org(org)?;
        let token = token_of(Some(org), after)?;
        let resumed = token.as_ref().and_then(|token| Some((token.clock?, behind(token))));
        let (clock, last) = resumed.unzip();
        Ok(Self {
            pace,
            signer: token::signer(org)?,
            life: scope::life(org)?,
            clock: clock.unwrap_or_default(),
            last,
        })
    }

    fn play(&mut self, created_at: i64, id: i64) {
        if let Some((before, _)) = self.last {
            self.clock = self.pace.next(self.clock, created_at.saturating_sub(before));
        }
        self.last = Some((created_at, id));
    }

    fn token(&self) -> Token {
        let (created_at, id) = self.last.unwrap_or_default();
        let place = Place::Time { created_at, id, backward: false };
        Token { clock: Some(self.clock), ..Token::at(place, self.life) }
    }
}
