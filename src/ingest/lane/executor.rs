//! The lane that is always right: INSERT through the executor.

use std::ops::Range;

use pgrx::itemptr::item_pointer_get_both;
use pgrx::pg_sys::BuiltinOid::{
    INT2OID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZARRAYOID,
};
use pgrx::pg_sys::{self, BuiltinOid};
use pgrx::prelude::*;

use super::Rows;
use crate::error::{Error, Result, spi};
use crate::event::Event;
use crate::statement::Statement;
use crate::statement::arg;
use crate::tier::to_postgres_time;

/// Rows per statement: their values are held three times while it runs.
const PART: usize = 10_000;

/// `unnest` of several arrays is only known by its unqualified name; that the function pins its
/// search_path is what makes it PostgreSQL's own.
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

thread_local! {
    static INSERT_MANY: Statement = const { Statement::new(WHAT, insert!(), ARGUMENTS) };
    /// Of a single row we want to know the chunk and the place in it.
    static INSERT_ONE: Statement =
        const { Statement::new(WHAT, concat!(insert!(), " RETURNING tableoid, ctid"), ARGUMENTS) };
}

/// Inserts the rows.
pub fn insert(rows: &Rows, range: Range<usize>) -> Result<()> {
    for start in range.clone().step_by(PART) {
        let arguments = arguments(rows, start..range.end.min(start + PART))?;
        Spi::connect_mut(|client| INSERT_MANY.with(|insert| insert.run(client, &arguments)).map(drop))?;
    }
    Ok(())
}

/// Inserts one row; returns the chunk and the block that it went to.
pub fn insert_one(rows: &Rows, index: usize) -> Result<(pg_sys::Oid, u32)> {
    let arguments = arguments(rows, index..index + 1)?;
    Spi::connect_mut(|client| {
        let row = INSERT_ONE.with(|insert| insert.run(client, &arguments))?.first();
        let chunk = row.get::<pg_sys::Oid>(1).map_err(spi(WHAT))?;
        let place = row.get::<pg_sys::ItemPointerData>(2).map_err(spi(WHAT))?;
        let (chunk, place) = chunk.zip(place).ok_or(Error::Internal("an INSERT that stored nothing"))?;
        Ok((chunk, item_pointer_get_both(place).0))
    })
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
