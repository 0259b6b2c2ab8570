//! Queries of a hypertable that read a stretch of time, over and over while a reader walks through it.
//!
//! A plan for any time opens all chunks whenever it runs, and one for the values of each call has to be made for each. So
//! whoever stays in a stretch gets a plan for that stretch: its borders are constants, which leave only its chunks. A
//! new chunk invalidates it, as any plan of the table.

use std::cell::RefCell;
use std::collections::VecDeque;

use pgrx::PgBuiltInOids;
use pgrx::prelude::*;

use super::raw::{Planning, Plans, RawPlan};
use crate::error::Result;

/// Stretches whose plans a session keeps.
const MAX_PLANS: usize = 8;

/// Where a query has the condition that leads to its chunks.
pub const PLACEHOLDER: &str = "/* stretch */";

/// A query, and the borders of its stretch in PostgreSQL's microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    sql: String,
    borders: (i64, i64),
}

/// The plans of some queries of one hypertable.
pub struct StretchPlans {
    column: &'static str,
    arguments: &'static [PgBuiltInOids],
    /// What the borders are multiples of: PostgreSQL's microseconds.
    unit: i64,
    of_any: Plans<String>,
    of_stretch: Plans<Key>,
    /// What was asked for lately.
    recent: RefCell<VecDeque<Key>>,
}

impl StretchPlans {
    /// `column` is the one that the hypertable is divided by.
    pub fn new(column: &'static str, arguments: &'static [PgBuiltInOids], unit: i64) -> Self {
        let (of_any, of_stretch) = (Plans::default(), Plans::at_most(MAX_PLANS));
        Self { column, arguments, unit, of_any, of_stretch, recent: RefCell::default() }
    }

    /// The plan of a query that reads this stretch, the end not included. Inside an SPI connection.
    pub fn get(&self, sql: String, (start, end): (i64, i64)) -> Result<RawPlan> {
        let last = border(end.saturating_sub(1), self.unit).saturating_add(self.unit);
        let key = Key { sql, borders: (border(start, self.unit), last) };
        if self.recent.borrow().contains(&key) {
            return self
                .of_stretch
                .get(&key, |key| RawPlan::new(&self.bounded(key), self.arguments, Planning::ForAnyValues));
        }
        let plan = self.of_moment(&key.sql);
        let mut recent = self.recent.borrow_mut();
        recent.truncate(MAX_PLANS - 1);
        recent.push_front(key);
        plan
    }

    /// One that is planned when it runs, so it knows all chunks that the active snapshot shows. (PostgreSQL tells other
    /// sessions of a change when its commit can be seen already: until then a plan may not know a new chunk.)
    pub fn of_moment(&self, sql: &str) -> Result<RawPlan> {
        self.of_any.get(sql, |sql| RawPlan::new(sql, self.arguments, Planning::EachCall))
    }

    /// The query with its borders in it; without one that is beyond all times, which leads to no chunk.
    fn bounded(&self, Key { sql, borders: (start, end) }: &Key) -> String {
        let condition = |comparison: &str, time: &i64| {
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
