//! Single positions, for functions in SQL: a query of the hypertable would open all of its chunks.

use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::batch_reader::order::{self, PositionRow};
use crate::error::{Result, report};

type Row =
    (i64, TimestampWithTimeZone, i64, i64, Option<String>, Option<String>, Option<TimestampWithTimeZone>);

/// `tailstream.last_position(before bigint)`
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn last_position(
    before: i64,
) -> TableIterator<
    'static,
    (
        name!(seq, i64),
        name!(placed_at, TimestampWithTimeZone),
        name!(events_before, i64),
        name!(event_count, i64),
        name!(snapshot, Option<String>),
        name!(partial, Option<String>),
        name!(unpolled_since, Option<TimestampWithTimeZone>),
    ),
> {
    TableIterator::new(rows(order::last_before(before)))
}

/// `tailstream.first_position(since bigint)`
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn first_position(
    since: i64,
) -> TableIterator<
    'static,
    (
        name!(seq, i64),
        name!(placed_at, TimestampWithTimeZone),
        name!(events_before, i64),
        name!(event_count, i64),
        name!(snapshot, Option<String>),
        name!(partial, Option<String>),
        name!(unpolled_since, Option<TimestampWithTimeZone>),
    ),
> {
    TableIterator::new(rows(order::first_from(since)))
}

/// `tailstream.last_poll_after(seq bigint)`
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn last_poll_after(
    seq: i64,
) -> TableIterator<
    'static,
    (
        name!(seq, i64),
        name!(placed_at, TimestampWithTimeZone),
        name!(events_before, i64),
        name!(event_count, i64),
        name!(snapshot, Option<String>),
        name!(partial, Option<String>),
        name!(unpolled_since, Option<TimestampWithTimeZone>),
    ),
> {
    TableIterator::new(rows(order::last_poll_after(seq)))
}

/// `tailstream.has_positions(org text, tier smallint) → boolean`
#[pg_extern(sql = false)]
fn has_positions(org: &str, tier: i16) -> bool {
    report(order::has_any(org, tier))
}

fn rows(found: Result<Option<PositionRow>>) -> impl Iterator<Item = Row> {
    let time = |micros: i64| TimestampWithTimeZone::try_from(micros).ok();
    report(found).into_iter().filter_map(move |row| {
        let unpolled_since = row.unpolled_since.and_then(time);
        let placed_at = time(row.placed_at)?;
        Some((row.seq, placed_at, row.events_before, row.events, row.snapshot, row.partial, unpolled_since))
    })
}
