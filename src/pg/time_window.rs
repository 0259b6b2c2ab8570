//! Queries of a hypertable that read one time window, repeatedly while a reader walks through it.
//!
//! A plan for any time opens all chunks on each execution, and a plan for the values of each call has to be made for each
//! call. A reader that stays in a time window therefore gets a plan for that window: its borders are constants, which leave
//! only its chunks. A new chunk invalidates the plan, as it does any plan of the table.

use std::cell::RefCell;
use std::collections::VecDeque;

use pgrx::PgBuiltInOids;
use pgrx::prelude::*;

use super::streaming::{PlanCache, PlanCacheMode, StreamingPlan};
use crate::error::Result;

/// Time windows whose plans a session keeps.
const MAX_PLANS: usize = 8;

/// Where the query gets the condition on its time column.
pub const PLACEHOLDER: &str = "/* time window */";

/// A query, and the borders of its window in PostgreSQL's microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    sql: String,
    borders: (i64, i64),
}

/// The plans of some queries of one hypertable.
pub struct TimeWindowPlans {
    column: &'static str,
    arguments: &'static [PgBuiltInOids],
    /// Borders are multiples of this: PostgreSQL's microseconds.
    unit: i64,
    of_any: PlanCache<String>,
    of_window: PlanCache<Key>,
    /// The keys of the latest calls.
    recent: RefCell<VecDeque<Key>>,
}

impl TimeWindowPlans {
    /// `column` is the one that the hypertable is divided by.
    pub fn new(column: &'static str, arguments: &'static [PgBuiltInOids], unit: i64) -> Self {
        let (of_any, of_window) = (PlanCache::default(), PlanCache::at_most(MAX_PLANS));
        Self { column, arguments, unit, of_any, of_window, recent: RefCell::default() }
    }

    /// The plan of a query that reads this window, the end not included. Inside an SPI connection.
    pub fn get(&self, sql: String, (start, end): (i64, i64)) -> Result<StreamingPlan> {
        let last = border(end.saturating_sub(1), self.unit).saturating_add(self.unit);
        let key = Key { sql, borders: (border(start, self.unit), last) };
        if self.recent.borrow().contains(&key) {
            return self.of_window.get(&key, |key| {
                StreamingPlan::new(&self.bounded(key), self.arguments, PlanCacheMode::Generic)
            });
        }
        let plan = self.of_moment(&key.sql);
        let mut recent = self.recent.borrow_mut();
        recent.truncate(MAX_PLANS - 1);
        recent.push_front(key);
        plan
    }

    /// A plan that is made when it runs, so it includes all chunks that the active snapshot shows. (PostgreSQL announces a change to
    /// other sessions only after its commit is visible, so a saved plan may miss a new chunk for a moment.)
    pub fn of_moment(&self, sql: &str) -> Result<StreamingPlan> {
        self.of_any.get(sql, |sql| StreamingPlan::new(sql, self.arguments, PlanCacheMode::Custom))
    }

    /// The query with the borders of its window. An infinite border is left out.
    fn bounded(&self, Key { sql, borders: (start, end) }: &Key) -> String {
        let condition = |comparison: &str, time: &i64| {
            // Infinity is no border.
            let time = Some(time).filter(|time| ![i64::MIN, i64::MAX].contains(time))?;
            // ISO 8601 with an offset means the same in every session.
            let time = TimestampWithTimeZone::try_from(*time).ok()?.to_iso_string();
            Some(format!(" AND {} {comparison} '{time}'", self.column))
        };
        let conditions = [condition(">=", start), condition("<", end)];
        sql.replace(PLACEHOLDER, &conditions.into_iter().flatten().collect::<String>())
    }
}

/// The last multiple of a unit up to a time.
pub fn border(time: i64, unit: i64) -> i64 {
    time.div_euclid(unit).saturating_mul(unit)
}

/// How much longer each window is than the one before.
const GROWTH: i64 = 4;
/// Two hundred years in microseconds: a longer window has no end.
const LONGEST: i64 = 200 * 366 * 86_400_000_000;

/// The windows that all times from one on fall into, in their order: the first ends within a unit, the last never.
/// `now` is the present, where nearly all stored time ends.
pub fn forward(from: i64, now: i64, unit: i64) -> impl Iterator<Item = (i64, i64)> {
    let (mut next, mut length) = (Some(from), unit);
    std::iter::from_fn(move || {
        let start = next?;
        let end = border(start, unit).saturating_add(length);
        // The future has few chunks or none, so it is part of the last window.
        let end = if end > now || length > LONGEST { i64::MAX } else { end };
        next = Some(end).filter(|end| *end != i64::MAX);
        length = length.saturating_mul(GROWTH);
        Some((start, end))
    })
}

/// The windows that all times before an end fall into, the latest first: the last has no beginning.
pub fn backward(end: i64, now: i64, unit: i64) -> impl Iterator<Item = (i64, i64)> {
    let (mut next, mut length) = (Some(end), unit);
    std::iter::from_fn(move || {
        let end = next?;
        let start = if length > LONGEST {
            i64::MIN
        } else {
            border(end.min(now).saturating_sub(1), unit).saturating_sub(length - unit)
        };
        next = Some(start).filter(|start| *start != i64::MIN);
        length = length.saturating_mul(GROWTH);
        Some((start, end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const UNIT: i64 = 6 * HOUR;

    #[test]
    fn windows_cover_all_time_without_overlap() {
        for from in [-50 * HOUR, 0, 7 * HOUR, 100 * HOUR, 900_000 * HOUR] {
            let now = 100 * HOUR;
            let windows: Vec<_> = forward(from, now, UNIT).collect();
            assert_eq!((windows[0].0, windows[windows.len() - 1].1), (from, i64::MAX));
            assert!(windows.windows(2).all(|pair| pair[0].1 == pair[1].0), "{windows:?}");
            let windows: Vec<_> = backward(from, now, UNIT).collect();
            assert_eq!((windows[0].1, windows[windows.len() - 1].0), (from, i64::MIN));
            assert!(windows.windows(2).all(|pair| pair[0].0 == pair[1].1), "{windows:?}");
            assert!(windows.iter().all(|(start, end)| start < end), "{windows:?}");
        }
    }

    #[test]
    fn the_first_window_is_within_a_unit_of_the_present() {
        let now = 100 * HOUR;
        assert_eq!(backward(i64::MAX, now, UNIT).next(), Some((96 * HOUR, i64::MAX)));
        assert_eq!(backward(i64::MAX, 96 * HOUR, UNIT).next(), Some((90 * HOUR, i64::MAX)));
        assert_eq!(forward(97 * HOUR, now, UNIT).next(), Some((97 * HOUR, i64::MAX)));
        assert_eq!(forward(90 * HOUR, now, UNIT).next(), Some((90 * HOUR, 96 * HOUR)));
    }
}
