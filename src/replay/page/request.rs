//! The parameters of a page, and the tokens that it returns.

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::replay::filter::{Filter, Values};
use crate::replay::token::{Boundary, FetchedFrom, Place, Refusal, Signer, Token};
use crate::tier::cache;

/// The earliest and the latest time, for a range without an end.
pub const ALWAYS: i64 = i64::MIN;
pub const FOREVER: i64 = i64::MAX;

/// The next event to read in commit order; the content of `Place::Arrival`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    pub seq: i64,
    pub offset: i32,
    /// Its position was not assigned before this time: milliseconds since the Unix epoch.
    pub placed_ms: i64,
}

impl Next {
    pub fn place(self) -> Place {
        Place::Arrival { seq: self.seq, offset: self.offset, placed_ms: self.placed_ms }
    }
}

/// The events of one org that a call reads. Times are PostgreSQL's microseconds.
pub struct PageRequest<'a> {
    pub org: &'a str,
    pub filter: &'a Filter,
    pub values: Values,
    /// start <= created_at < end.
    pub start: i64,
    pub end: i64,
    /// Older events are hidden, and may be gone.
    pub cutoff: i64,
    /// Older events may have been purged while the retention was shorter. Not before the cutoff.
    pub lost_before: i64,
    /// Losses of older events are not reported: the events were already gone when the reader began, or the loss was
    /// reported.
    pub accounted_until: i64,
    /// This applies only to batches with a position before this one.
    pub accounted_until_seq: i64,
    /// Only batches with a position up to this one.
    pub boundary: Option<Boundary>,
    /// When that position was assigned: PostgreSQL's microseconds.
    pub boundary_at: Option<i64>,
    /// Whether a missing row is taken as absent. Then no committed position may be missed, not even in a chunk whose creation has
    /// not been announced to this session yet.
    pub complete: bool,
    pub incarnation: u32,
    pub fetched_from: Option<FetchedFrom>,
}

impl<'a> PageRequest<'a> {
    /// All events of an org that are not hidden now.
    pub fn of(org: &'a str, filter: &'a Filter) -> Result<Self> {
        Self::with(org, filter, Values::of(filter)?)
    }

    /// The same with existing filter values.
    pub fn with(org: &'a str, filter: &'a Filter, values: Values) -> Result<Self> {
        // PostgreSQL processes invalidations when a lock is acquired, which may have been long ago in this transaction.
        // SAFETY: inside a transaction.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        let cutoff = cutoff(org)?;
        Ok(Self {
            org,
            filter,
            values,
            start: ALWAYS,
            end: FOREVER,
            cutoff,
            lost_before: lost_before(org)?.max(cutoff),
            accounted_until: ALWAYS,
            accounted_until_seq: FOREVER,
            boundary: None,
            boundary_at: None,
            complete: false,
            incarnation: incarnation(org)?,
            fetched_from: None,
        })
    }

    pub fn token(&self, place: Place) -> Token {
        let accounted_until = match place {
            // After it, no earlier gap can be reported again.
            Place::Time { created_at, backward: false, .. } => {
                (created_at < self.accounted_until).then_some(self.accounted_until)
            }
            Place::Time { .. } => (self.accounted_until != ALWAYS).then_some(self.accounted_until),
            Place::Arrival { .. } => None,
        };
        Token {
            boundary: self.boundary,
            accounted_until,
            fetched_from: self.fetched_from,
            ..Token::at(place, self.incarnation)
        }
    }

    /// Runs `body` under the snapshot for reading positions: the transaction's, but the latest one if there is a boundary, because
    /// the reader follows the stream from there.
    pub fn with_snapshot<T>(&self, body: impl FnOnce() -> T) -> T {
        if self.boundary.is_some() { snapshot::latest(body) } else { snapshot::current(body) }
    }

    /// The last position to read.
    pub fn last_position(&self) -> i64 {
        self.boundary.map_or(i64::MAX, |boundary| boundary.seq)
    }

    /// Records that losses before this time were reported.
    pub fn account_until(&mut self, until: i64) {
        self.accounted_until = self.accounted_until.max(until);
    }
}

/// Clamps a time to a range in which arithmetic is possible, in TimescaleDB too.
pub fn in_range(time: i64) -> i64 {
    // Somewhat after 4713 BC, and well before the end of PostgreSQL's time.
    const EARLIEST: i64 = -211_000_000_000_000_000;
    const LATEST: i64 = 9_000_000_000_000_000_000;
    time.clamp(EARLIEST, LATEST)
}

/// The retention cutoff of an org now. Not at the start of the statement: a function may read many pages in one statement, and the
/// loss of events that are purged meanwhile would not be reported.
pub fn cutoff(org: &str) -> Result<i64> {
    // SAFETY: reads the clock.
    Ok(unsafe { pg_sys::GetCurrentTimestamp() } - crate::replay::retention_of(org)?)
}

/// The time before which events may have been purged that the present retention would keep.
fn lost_before(org: &str) -> Result<i64> {
    Ok(match cache::find(org)? {
        Some(org) => org.lost_before,
        None => cache::default_tier()?.lost_before,
    })
}

/// A number that distinguishes an org from an erased org with the same id; 0 if it is not registered.
pub fn incarnation(org: &str) -> Result<u32> {
    // The milliseconds of the registration. They repeat after seven weeks, which is very unlikely to matter.
    Ok(cache::find(org)?.map_or(0, |org| ((org.registered_at / 1_000) as u32).max(1)))
}

/// Reads a token of this org.
pub fn read_token(signer: &Signer, text: &str) -> Result<Token> {
    signer.read(text).map_err(|refusal| match refusal {
        Refusal::Invalid => Error::BadToken,
        Refusal::Foreign => Error::ForeignToken,
    })
}
