//! Filters of events, as a condition in SQL and as a check of single rows.

mod parse;
mod values;

use pgrx::pg_sys;

use crate::pg::streaming::SlotRow;
pub use parse::MAX_LENGTH;
pub use values::Values;

/// Indexes in `storage::events::COLUMNS`.
const HOST: usize = 3;
const METHOD: usize = 4;
const PATH: usize = 5;
const STATUS: usize = 6;
const METADATA: usize = 12;

/// All given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ranges, both ends included.
    status: Option<Vec<(i32, i32)>>,
    method: Option<Vec<String>>,
    host: Option<Vec<String>>,
    /// Prefixes.
    path: Option<Vec<String>>,
    /// The JSON of an object that an event's metadata must contain.
    metadata: Option<String>,
    /// The JSON from which it was read.
    text: Option<String>,
}

impl Filter {
    /// Whether all events match.
    pub fn is_empty(&self) -> bool {
        self.text.is_none()
    }

    /// The JSON from which it was read; `None` if all events match.
    pub fn text(&self) -> Option<String> {
        self.text.clone()
    }

    /// An SQL condition that begins with AND. Its values are the arguments from number `first`: methods, hosts, path prefixes and
    /// metadata, always all four.
    pub fn condition(&self, first: usize) -> String {
        let mut sql = String::new();
        if let Some(ranges) = &self.status {
            let range = |(low, high): &(i32, i32)| format!("status BETWEEN {low} AND {high}");
            let any: Vec<String> = ranges.iter().map(range).collect();
            sql += &format!(" AND ({})", any.join(" OR "));
        }
        let lists = [(&self.method, "method ="), (&self.host, "host ="), (&self.path, "path ^@")];
        for (number, (list, comparison)) in lists.into_iter().enumerate() {
            if list.is_some() {
                sql += &format!(" AND {comparison} ANY (${})", first + number);
            }
        }
        if self.metadata.is_some() {
            sql += &format!(" AND metadata @> ${}", first + lists.len());
        }
        sql
    }

    /// Whether a row of `storage::events::COLUMNS` matches. `values` are those of this filter.
    pub fn matches(&self, row: &SlotRow<'_>, values: &Values) -> bool {
        let one_of = |list: &Option<Vec<String>>, column| {
            list.as_ref()
                .is_none_or(|list| row.text(column).is_some_and(|text| list.iter().any(|one| one == text)))
        };
        let in_range = |status: i32, ranges: &[(i32, i32)]| {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&status))
        };
        let begins =
            |path: &str, prefixes: &[String]| prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()));
        self.status
            .as_ref()
            .is_none_or(|ranges| row.int4(STATUS).is_some_and(|status| in_range(status, ranges)))
            && one_of(&self.method, METHOD)
            && one_of(&self.host, HOST)
            && self.path.as_ref().is_none_or(|list| row.text(PATH).is_some_and(|path| begins(path, list)))
            && values
                .metadata()
                .is_none_or(|wanted| row.datum(METADATA).is_some_and(|found| contains(found, wanted)))
    }
}

/// The jsonb operator `@>`.
fn contains(found: pg_sys::Datum, wanted: pg_sys::Datum) -> bool {
    // SAFETY: jsonb_contains takes two jsonb and returns a boolean.
    let contained =
        unsafe { pgrx::direct_function_call::<bool>(pg_sys::jsonb_contains, &[Some(found), Some(wanted)]) };
    contained == Some(true)
}

#[cfg(test)]
mod tests;
