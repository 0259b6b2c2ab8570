//! The executor write path: an INSERT into the hypertable.

use std::ops::Range;

use pgrx::itemptr::item_pointer_get_both;
use pgrx::pg_sys::BuiltinOid::{
    INT2OID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZARRAYOID,
};
use pgrx::pg_sys::{self, BuiltinOid};
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

use super::Rows;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::pg::statement::{Statement, arg, column};
use crate::pg::time::to_postgres_time;

/// Rows per statement. Their values are in memory three times while it runs.
const PART: usize = 10_000;

/// The parser only knows `unnest` of several arrays by its unqualified name. The calling function pins its search_path, so the
/// name cannot be captured.
macro_rules! insert {
    () => {
        "INSERT INTO tailstream.events (id, created_at, org_id, tier, host, method, path, status, response_time,
             response_size, user_agent, referrer, ip_address, metadata)
         SELECT u.id, u.created_at, $1, $2, u.host, u.method, u.path, u.status, u.response_time,
             u.response_size, u.user_agent, u.referrer, u.ip_address::pg_catalog.inet, u.metadata::pg_catalog.jsonb
         FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             AS u(id, created_at, host, method, path, status, response_time, response_size, user_agent, referrer,
                  ip_address, metadata)"
    };
}

const TABLE: &str = "events";
const WHAT: &str = "storing events";
const ARGUMENTS: &[BuiltinOid] = &[
    TEXTOID,
    INT2OID,
    INT8ARRAYOID,
    TIMESTAMPTZARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    INT4ARRAYOID,
    INT4ARRAYOID,
    INT8ARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
];

/// The columns that a user's trigger must not change, because the ledger repeats them or they identify the event.
macro_rules! returning {
    ($more:literal) => {
        concat!(insert!(), " RETURNING id, created_at, org_id = $1 AND tier = $2", $more)
    };
}

thread_local! {
    static INSERT_MANY: Statement = const { Statement::new(WHAT, returning!(""), ARGUMENTS) };
    /// For a single row, the chunk and the block are returned too.
    static INSERT_ONE: Statement = const { Statement::new(WHAT, returning!(", tableoid, ctid"), ARGUMENTS) };
}

/// Inserts the rows.
pub fn insert(rows: &Rows, range: Range<usize>) -> Result<()> {
    for start in range.clone().step_by(PART) {
        let part = start..range.end.min(start + PART);
        let arguments = arguments(rows, part.clone())?;
        Spi::connect_mut(|client| {
            let stored = INSERT_MANY.with(|insert| insert.run(client, &arguments))?;
            if stored.len() != part.len() {
                return Err(Error::RowNotStored(TABLE));
            }
            stored.into_iter().zip(part).try_for_each(|(row, index)| check(&row, rows, index))
        })?;
    }
    Ok(())
}

/// Inserts one row. Returns the chunk and the block that it was inserted into.
pub fn insert_one(rows: &Rows, index: usize) -> Result<(pg_sys::Oid, u32)> {
    let arguments = arguments(rows, index..index + 1)?;
    Spi::connect_mut(|client| {
        let stored = INSERT_ONE.with(|insert| insert.run(client, &arguments))?;
        let row = stored.into_iter().next().ok_or(Error::RowNotStored(TABLE))?;
        check(&row, rows, index)?;
        let place: pg_sys::ItemPointerData = column(&row, 5, WHAT)?;
        Ok((column(&row, 4, WHAT)?, item_pointer_get_both(place).0))
    })
}

/// Error unless the row was stored with the values of its event. Rows are returned in the order of the arguments.
fn check(row: &SpiHeapTupleData<'_>, rows: &Rows, index: usize) -> Result<()> {
    let (id, event) = rows.get(index);
    let created_at: i64 = column::<TimestampWithTimeZone>(row, 2, WHAT)?.into();
    let same = column::<i64>(row, 1, WHAT)? == id
        && created_at == to_postgres_time(event.created_at)
        && column::<bool>(row, 3, WHAT)?;
    if same { Ok(()) } else { Err(Error::RowNotStored(TABLE)) }
}

fn arguments(rows: &Rows, range: Range<usize>) -> Result<[pgrx::datum::DatumWithOid<'static>; 14]> {
    let times: Option<Vec<TimestampWithTimeZone>> = range
        .clone()
        .map(|index| TimestampWithTimeZone::try_from(to_postgres_time(rows.get(index).1.created_at)).ok())
        .collect();
    let events = || range.clone().map(|index| rows.get(index).1);
    let texts = |text: fn(&Event) -> Option<String>| arg(events().map(text).collect::<Vec<_>>());
    Ok([
        arg(rows.stored.org.to_owned()),
        arg(rows.stored.tier),
        arg(range.clone().map(|index| rows.get(index).0).collect::<Vec<_>>()),
        arg(times.ok_or(Error::Internal("a time out of range"))?),
        texts(|event| event.host.as_deref().map(str::to_owned)),
        texts(|event| Some(event.method.as_ref().to_owned())),
        texts(|event| Some(event.path.as_ref().to_owned())),
        arg(events().map(|event| event.status).collect::<Vec<_>>()),
        arg(events().map(|event| event.response_time).collect::<Vec<_>>()),
        arg(events().map(|event| event.response_size).collect::<Vec<_>>()),
        texts(|event| event.user_agent.as_deref().map(str::to_owned)),
        texts(|event| event.referrer.as_deref().map(str::to_owned)),
        texts(|event| event.ip_address.map(|address| address.to_string())),
        texts(|event| event.metadata.clone()),
    ])
}
