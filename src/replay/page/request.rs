//! What a page is made of, and what its tokens say.

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::replay::filter::{Filter, Values};
use crate::replay::token::{Boundary, FetchedFrom, Place, Refusal, Signer, Token};
use crate::tier::cache;

/// The earliest and the latest time there is, for a range without such an end.
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
    /// Older events may be gone though they would be shown: the retention was shorter once. Not before the cutoff.
    pub lost_before: i64,
    /// Losses of older events are not reported: the events were already gone when the reader began, or the loss was
    /// reported.
    pub accounted_until: i64,
    /// The same goes only for what has a position before this one.
    pub accounted_until_seq: i64,
    /// Only what has a position up to this one.
    pub boundary: Option<Boundary>,
    /// When that was placed: PostgreSQL's microseconds.
    pub boundary_at: Option<i64>,
    /// What is not found will be taken for not there: no position that is committed may be missing, not even one whose
    /// commit is just being told to other sessions.
    pub complete: bool,
    pub incarnation: u32,
    pub fetched_from: Option<FetchedFrom>,
}

impl<'a> PageRequest<'a> {
    /// All that an org shows now.
    pub fn of(org: &'a str, filter: &'a Filter) -> Result<Self> {
        Self::with(org, filter, Values::of(filter)?)
    }

    /// The same, with the filter's values made before.
    pub fn with(org: &'a str, filter: &'a Filter, values: Values) -> Result<Self> {
        // A call may come long after its transaction's last lock, with which PostgreSQL tells of changes.
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
            // Behind it there is nothing more to tell.
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

    /// With a snapshot for what has positions: that of the transaction, but up to a boundary the latest, for from there on
    /// the reader follows the stream.
    pub fn with_snapshot<T>(&self, body: impl FnOnce() -> T) -> T {
        if self.boundary.is_some() { snapshot::latest(body) } else { snapshot::current(body) }
    }

    /// What has a position behind this one is left out.
    pub fn last_position(&self) -> i64 {
        self.boundary.map_or(i64::MAX, |boundary| boundary.seq)
    }

    /// A loss before this time was told.
    pub fn tell(&mut self, until: i64) {
        self.accounted_until = self.accounted_until.max(until);
    }
}

/// A time that arithmetic can be done with, by TimescaleDB too: infinities come to the ends of that range.
pub fn in_range(time: i64) -> i64 {
    // Somewhat after 4713 BC, and well before the end of PostgreSQL's time.
    const EARLIEST: i64 = -211_000_000_000_000_000;
    const LATEST: i64 = 9_000_000_000_000_000_000;
    time.clamp(EARLIEST, LATEST)
}

/// The oldest time that is shown of an org at this moment. Not at the statement's start: a function may run many pages
/// in one statement, and what is purged meanwhile would be missing without a word.
pub fn cutoff(org: &str) -> Result<i64> {
    // SAFETY: reads the clock.
    Ok(unsafe { pg_sys::GetCurrentTimestamp() } - crate::replay::retention_of(org)?)
}

/// Before which time events may be gone that today's retention would keep.
fn lost_before(org: &str) -> Result<i64> {
    Ok(match cache::find(org)? {
        Some(org) => org.lost_before,
        None => cache::default_tier()?.lost_before,
    })
}

/// Tells an org from one of the same name that was erased; 0 if it is not registered.
pub fn incarnation(org: &str) -> Result<u32> {
    // Milliseconds wrap after seven weeks, and nobody erases an org at the very millisecond of its registration then.
    Ok(cache::find(org)?.map_or(0, |org| ((org.registered_at / 1_000) as u32).max(1)))
}

/// The token that a text is, for this org.
pub fn read_token(signer: &Signer, text: &str) -> Result<Token> {
    signer.read(text).map_err(|refusal| match refusal {
        Refusal::Invalid => Error::BadToken,
        Refusal::Foreign => Error::ForeignToken,
    })
}
