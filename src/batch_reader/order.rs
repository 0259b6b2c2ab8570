//! Searches of the positions in commit order that open only the chunks they need.
//!
//! The table of positions is divided into chunks by `placed_at`, which never decreases as the sequence number grows. A
//! search for a sequence number therefore reads one time window after another, from a known end, and opens only the
//! chunks in those windows. All searches use the active snapshot.

use pgrx::pg_sys::BuiltinOid::{INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::spi::Spi;
use pgrx::{IntoDatum, PgBuiltInOids, pg_sys};

use crate::error::{Error, Result};
use crate::pg::streaming::{SlotRow, StreamingPlan, Visibility};
use crate::pg::time;
use crate::pg::time_window::{PLACEHOLDER, TimeWindowPlans, backward, forward};

/// Length of the first time window of a search, in microseconds; each further window is four times as long. It is the
/// default chunk interval of the table of positions.
pub const WINDOW_UNIT: i64 = 6 * 3_600 * 1_000_000;

/// From, to, a number, an org, the time of an event.
const ARGUMENTS: [PgBuiltInOids; 5] = [TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, TEXTOID, TIMESTAMPTZOID];
/// The sequence number, org and event time of a search; its time window is given separately.
type SearchArguments<'a> = (i64, Option<&'a str>, i64);

const LAST_BEFORE: &str = "p.seq < $3";
const LAST_LOOK_BEFORE: &str = "p.seq < $3 AND p.snapshot IS NOT NULL";
const FIRST_FROM: &str = "p.seq >= $3";
const FIRST_OF_ORG: &str = "p.seq >= $3 AND p.org_id = $4";
const LAST_OF_TIER: &str = "p.org_id = $4 AND p.tier = $3";
const FIRST_BEHIND: &str = "p.org_id = $4 AND (p.placed_at > $5 OR p.stream_seq + p.event_count > $3)";
const FIRST_SHOWN: &str = "p.seq >= $3 AND p.org_id = $4 AND p.last_event_at >= $5";

thread_local! {
    static PLANS: TimeWindowPlans = TimeWindowPlans::new("p.placed_at", &ARGUMENTS, WINDOW_UNIT);
}

/// The columns of a position that say where it is in commit order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    pub seq: i64,
    /// PostgreSQL's microseconds, whole milliseconds.
    pub placed_at: i64,
    pub stream_seq: i64,
    pub events: i64,
    pub events_before: i64,
    pub org: String,
    /// The sequencer's snapshot; only the last position of each poll has one.
    pub snapshot: Option<String>,
    pub partial: Option<String>,
    /// Batches that the poll did not see were received at this time or later: PostgreSQL's microseconds.
    pub unpolled_since: Option<i64>,
}

impl PositionRow {
    fn of(row: &SlotRow<'_>) -> Result<Self> {
        let number = |column| row.int8(column).ok_or(Error::Internal("a NULL in a position"));
        Ok(Self {
            seq: number(0)?,
            placed_at: number(1)?,
            stream_seq: number(2)?,
            events: number(3)?,
            events_before: number(4)?,
            org: row.text(5).unwrap_or_default().to_owned(),
            snapshot: row.text(6).map(str::to_owned),
            partial: row.text(7).map(str::to_owned),
            unpolled_since: row.int8(8),
        })
    }

    /// Milliseconds since the Unix epoch.
    pub fn ms(&self) -> i64 {
        time::to_unix_time(self.placed_at).div_euclid(1_000)
    }
}

/// The last position there is.
pub fn head() -> Result<Option<PositionRow>> {
    last_before(i64::MAX)
}

/// The last position before a number.
pub fn last_before(seq: i64) -> Result<Option<PositionRow>> {
    last(LAST_BEFORE, i64::MAX, (seq, None, 0))
}

/// As `last_before`, but planned now, so that it includes a chunk whose creation has just been committed and is still being
/// announced to other sessions.
pub fn last_before_now(seq: i64) -> Result<Option<PositionRow>> {
    let query = query(LAST_BEFORE, "DESC");
    let plan = || PLANS.with(|plans| plans.of_moment(&query));
    let mut found =
        backward(i64::MAX, now(), WINDOW_UNIT).map(|window| in_time_window(plan, window, (seq, None, 0)));
    found.find_map(Result::transpose).transpose()
}

/// The last position after a sequence number at which the sequencer stored its snapshot.
pub fn last_poll_after(seq: i64) -> Result<Option<PositionRow>> {
    let Some(head) = head()?.filter(|head| head.seq > seq) else { return Ok(None) };
    if head.snapshot.is_some() {
        return Ok(Some(head));
    }
    let found = last(LAST_LOOK_BEFORE, head.placed_at.saturating_add(1), (head.seq, None, 0))?;
    Ok(found.filter(|found| found.seq > seq))
}

/// Returns a time, in PostgreSQL's microseconds, before which no position from `seq` on was assigned; `None` if there is no
/// position before `seq`.
pub fn since(seq: i64) -> Result<Option<i64>> {
    Ok(last_before(seq)?.map(|last| last.placed_at))
}

/// As `since`, but considers only positions assigned after `earliest`, and returns `earliest` if there is none.
pub fn since_or(seq: i64, earliest: i64) -> Result<i64> {
    let windows = backward(i64::MAX, now(), WINDOW_UNIT).take_while(|(_, end)| *end > earliest);
    let windows = windows.map(|(start, end)| (start.max(earliest), end));
    let last = in_any(&query(LAST_BEFORE, "DESC"), windows, (seq, None, 0))?;
    Ok(last.map_or(earliest, |last| last.placed_at))
}

/// The first position from a number on.
pub fn first_from(seq: i64) -> Result<Option<PositionRow>> {
    match since(seq)? {
        Some(since) => first(FIRST_FROM, since, (seq, None, 0)),
        // Every position is after it.
        None => in_any(&query(FIRST_FROM, "ASC"), [(i64::MIN, i64::MAX)].into_iter(), (seq, None, 0)),
    }
}

/// An org's first position of a time or later.
pub fn first_of_org(org: &str, since: i64) -> Result<Option<PositionRow>> {
    first(FIRST_OF_ORG, since, (i64::MIN, Some(org), 0))
}

/// An org's first position with an event of this time or later.
pub fn first_shown(org: &str, cutoff: i64) -> Result<Option<PositionRow>> {
    // An event is placed a day before its time at the earliest: the range of max_future_skew.
    let since = cutoff.saturating_sub(24 * 3_600 * 1_000_000);
    first(FIRST_SHOWN, since, (i64::MIN, Some(org), cutoff))
}

/// An org's first position of a time with a stream id from this number on, or of a later time.
pub fn first_behind(org: &str, time: i64, number: i64) -> Result<Option<PositionRow>> {
    first(FIRST_BEHIND, time, (number, Some(org), time))
}

/// Whether an org has a position with events in the chunks of a tier.
pub fn has_any(org: &str, tier: i16) -> Result<bool> {
    Ok(last(LAST_OF_TIER, i64::MAX, (tier.into(), Some(org), 0))?.is_some())
}

/// How far back positions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PositionCoverage {
    /// Back to this time or further.
    Complete,
    /// Only from this position on, which was assigned later.
    From(PositionRow),
    /// No positions are kept.
    Empty,
}

/// Whether a position assigned at this time or earlier is kept; if not, the oldest position.
pub fn coverage(at: i64) -> Result<PositionCoverage> {
    let behind = at.saturating_add(1);
    if last(LAST_BEFORE, behind, (i64::MAX, None, 0))?.is_some() {
        return Ok(PositionCoverage::Complete);
    }
    let oldest = first(FIRST_FROM, behind, (i64::MIN, None, 0))?;
    Ok(oldest.map_or(PositionCoverage::Empty, PositionCoverage::From))
}

/// The first position from a time on that fulfils the condition.
fn first(condition: &str, since: i64, sought: SearchArguments<'_>) -> Result<Option<PositionRow>> {
    in_any(&query(condition, "ASC"), forward(since, now(), WINDOW_UNIT), sought)
}

/// The last position before a time that fulfils the condition.
fn last(condition: &str, before: i64, sought: SearchArguments<'_>) -> Result<Option<PositionRow>> {
    in_any(&query(condition, "DESC"), backward(before, now(), WINDOW_UNIT), sought)
}

/// The result of the first of these time windows that has one.
fn in_any(
    query: &str,
    windows: impl Iterator<Item = (i64, i64)>,
    sought: SearchArguments<'_>,
) -> Result<Option<PositionRow>> {
    for window in windows {
        let plan = || PLANS.with(|plans| plans.get(query.to_owned(), window));
        if let Some(found) = in_time_window(plan, window, sought)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn query(condition: &str, order: &str) -> String {
    format!(
        "SELECT p.seq, p.placed_at, p.stream_seq, p.event_count::bigint, p.events_before, p.org_id, p.snapshot::text,
                p.partial, p.unpolled_since
         FROM tailstream.positions p
         WHERE p.placed_at >= $1 AND p.placed_at < $2{PLACEHOLDER} AND {condition} ORDER BY p.seq {order} LIMIT 1"
    )
}

fn in_time_window(
    plan: impl Fn() -> Result<StreamingPlan>,
    (start, end): (i64, i64),
    (seq, org, at): SearchArguments<'_>,
) -> Result<Option<PositionRow>> {
    let org = org.and_then(IntoDatum::into_datum);
    let values = [Some(start.into()), Some(end.into()), Some(seq.into()), org, Some(at.into())];
    let mut found = None;
    Spi::connect_mut(|_| {
        plan()?.each(values, Visibility::ActiveSnapshot, |row| {
            found = Some(PositionRow::of(&row));
            false
        })
    })?;
    found.transpose()
}

/// The current time in PostgreSQL's microseconds; only a hint where a search begins.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
