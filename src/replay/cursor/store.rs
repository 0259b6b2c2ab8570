//! The table of durable cursors.
//!
//! Rows are read as they are committed now, whatever the isolation level: while this transaction holds the cursor's lock,
//! that is the state that the last reader left. Rows are written with ordinary SQL, so PostgreSQL refuses to change a row
//! version that the transaction's snapshot does not show.

use core::ffi::CStr;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::BuiltinOid::{BOOLOID, INT4OID, INT8OID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;
use pgrx::{FromDatum, pg_sys};

use crate::error::{Error, Result};
use crate::locks;
use crate::pg::catalog;
use crate::pg::object_lock::Acquired;
use crate::pg::statement::{Statement, arg};
use crate::pg::streaming::StreamingStatement;
use crate::pg::table_scan::{self, ScanKey, ScannedRow};
use crate::pg::time::to_unix_time;
use crate::replay::page::gap::from_ms;
use crate::replay::page::json_text;
use crate::replay::page::request::Next;
use crate::replay::page::rows::datum;
use crate::replay::token::Place;
use crate::session::org_scope;
use crate::settings;

// Columns of tailstream.durable_cursors.
const CURSOR_ID: usize = 1;
const NAME: usize = 2;
const ORG_ID: usize = 3;
const BY_ARRIVAL: usize = 4;
const FILTER: usize = 5;
const SEEK_GENERATION: usize = 6;
const PLACE_AT: usize = 7;
const PLACE_ID: usize = 8;
const PLACE_OFFSET: usize = 9;
const ACCOUNTED_UNTIL: usize = 10;
const ACCOUNTED_UNTIL_SEQ: usize = 11;
const INCARNATION: usize = 12;
const LAST_ACTIVE: usize = 14;

thread_local! {
    static CREATE: Statement = const { Statement::new(
        "creating a cursor",
        "INSERT INTO tailstream.durable_cursors (name, org_id, by_arrival, filter, place_at, place_id,
             place_offset, accounted_until, accounted_until_seq, incarnation)
         VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING cursor_id",
        &[TEXTOID, TEXTOID, BOOLOID, TEXTOID, TIMESTAMPTZOID, INT8OID, INT4OID, TIMESTAMPTZOID, INT8OID, INT8OID]) };
    static COUNT: StreamingStatement = const { StreamingStatement::new(
        "SELECT count(*) FROM (SELECT FROM tailstream.durable_cursors c WHERE c.org_id = $1 AND c.last_active >= $2 LIMIT $3) c",
        &[TEXTOID, TIMESTAMPTZOID, INT8OID]) };
    static DROP: Statement = const { Statement::new(
        "dropping a cursor", "DELETE FROM tailstream.durable_cursors WHERE cursor_id = $1", &[INT8OID]) };
    static MOVE: Statement = const { Statement::new(
        "moving a cursor",
        "UPDATE tailstream.durable_cursors
         SET place_at = $2, place_id = $3, place_offset = $4, accounted_until = $5, accounted_until_seq = $6,
             incarnation = $7, last_active = clock_timestamp()
         WHERE cursor_id = $1 RETURNING cursor_id",
        &[INT8OID, TIMESTAMPTZOID, INT8OID, INT4OID, TIMESTAMPTZOID, INT8OID, INT8OID]) };
    static SEEK: Statement = const { Statement::new(
        "moving a cursor",
        "UPDATE tailstream.durable_cursors
         SET place_at = $2, place_id = $3, place_offset = $4, accounted_until = $5, accounted_until_seq = $6,
             incarnation = $7, last_active = clock_timestamp(),
             seek_generation = nextval('tailstream.cursor_seek_generation_seq')
         WHERE cursor_id = $1 RETURNING cursor_id",
        &[INT8OID, TIMESTAMPTZOID, INT8OID, INT4OID, TIMESTAMPTZOID, INT8OID, INT8OID]) };
}

/// A durable cursor, locked by this transaction.
#[derive(Debug, Clone)]
pub struct DurableCursor {
    pub id: i64,
    pub name: String,
    pub org: String,
    pub by_arrival: bool,
    /// As JSON.
    pub filter: Option<String>,
    /// Changes with each seek.
    pub seek_generation: i32,
    pub state: CursorState,
    /// PostgreSQL's microseconds.
    pub last_active: i64,
}

/// What the table stores of a reader's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorState {
    pub place: Place,
    /// Losses of events before this time, in PostgreSQL's microseconds, are not reported if the position of the batch
    /// is also before `accounted_until_seq`.
    pub accounted_until: i64,
    pub accounted_until_seq: i64,
    /// The org's incarnation when the cursor got to `place`.
    pub incarnation: u32,
}

impl CursorState {
    /// The arguments of the statements that move a cursor: its id, then the columns of the state.
    fn arguments(self, id: i64) -> Result<[DatumWithOid<'static>; 7]> {
        let (at, place, offset) = columns(self.place)?;
        let accounted_until = time(self.accounted_until)?;
        Ok([
            arg(id),
            arg(at),
            arg(place),
            arg(offset),
            arg(accounted_until),
            arg(self.accounted_until_seq),
            arg(i64::from(self.incarnation)),
        ])
    }
}

/// Locks the cursor of this name until the end of the transaction and returns it. Without an org, exactly one org must have
/// a cursor of this name.
pub fn acquire(name: &str, org: Option<&str>, nowait: bool) -> Result<DurableCursor> {
    let (cursor, taken) = lock(name, org, nowait)?;
    // A transaction that already holds the lock may work on fetched events for longer than the cursor's time to live.
    if cursor.has_expired() && taken != Acquired::Before {
        return Err(Error::ExpiredCursor(name.to_owned()));
    }
    Ok(cursor)
}

/// The same, also if it has expired.
pub fn acquire_any(name: &str, org: Option<&str>) -> Result<DurableCursor> {
    lock(name, org, false).map(|(cursor, _)| cursor)
}

fn lock(name: &str, org: Option<&str>, nowait: bool) -> Result<(DurableCursor, Acquired)> {
    require_primary()?;
    let bound = org_scope::bound_org();
    if let Some(org) = org {
        org_scope::permitted_org(Some(org))?;
    }
    let id = find(name, org.or(bound.as_deref()))?;
    let taken = locks::cursor(id, nowait)?;
    if taken == Acquired::No {
        return Err(Error::CursorInUse(name.to_owned()));
    }
    // The cursor may have been dropped while this call waited for the lock.
    let cursor = read(id)?.ok_or_else(|| Error::NoCursor(name.to_owned()))?;
    Ok((cursor, taken))
}

/// Error on a standby.
pub fn require_primary() -> Result<()> {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } { Err(Error::OnStandby) } else { Ok(()) }
}

/// An org's cursor of this name, without any lock.
pub fn peek(name: &str, org: &str) -> Result<Option<DurableCursor>> {
    match find(name, Some(org)) {
        Ok(id) => read(id),
        Err(Error::NoCursor(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn find(name: &str, org: Option<&str>) -> Result<i64> {
    let mut keys = vec![ScanKey::text(NAME, datum(name)?)];
    if let Some(org) = org {
        keys.push(ScanKey::text(ORG_ID, datum(org)?));
    }
    let mut found = Vec::new();
    scan(c"durable_cursors_name_org_id_key", &keys, |row| found.push(row.value::<i64>(CURSOR_ID)))?;
    match found.as_slice() {
        [Some(id)] => Ok(*id),
        [] => Err(Error::NoCursor(name.to_owned())),
        _ => Err(Error::AmbiguousCursor(name.to_owned())),
    }
}

/// The cursor as it is committed now, or changed by this transaction.
fn read(id: i64) -> Result<Option<DurableCursor>> {
    let mut found = None;
    scan(c"durable_cursors_pkey", &[ScanKey::int8(CURSOR_ID, id)], |row| found = Some(cursor(row)))?;
    found.transpose()
}

/// Reads the table without the planner, which would take longer than the rest of the call.
fn scan(index: &CStr, keys: &[ScanKey], each: impl FnMut(&ScannedRow)) -> Result<()> {
    let schema = catalog::schema()?;
    let (cursors, index) =
        (catalog::relation(schema, c"durable_cursors")?, catalog::relation(schema, index)?);
    table_scan::scan_index(cursors, index, keys, each);
    Ok(())
}

fn cursor(row: &ScannedRow) -> Result<DurableCursor> {
    fn there<T: FromDatum>(row: &ScannedRow, column: usize) -> Result<T> {
        row.value(column).ok_or(Error::Internal("a NULL in a cursor"))
    }
    let by_arrival = there(row, BY_ARRIVAL)?;
    let (at, id) = (there(row, PLACE_AT)?, there(row, PLACE_ID)?);
    let place = if by_arrival {
        let placed_ms = to_unix_time(at).div_euclid(1_000);
        Next { seq: id, offset: there(row, PLACE_OFFSET)?, placed_ms }.place()
    } else {
        Place::Time { created_at: at, id, backward: false }
    };
    // SAFETY: the column is a jsonb.
    let filter = row.datum(FILTER).and_then(|filter| unsafe { json_text(filter) });
    Ok(DurableCursor {
        id: there(row, CURSOR_ID)?,
        name: there(row, NAME)?,
        org: there(row, ORG_ID)?,
        by_arrival,
        filter,
        seek_generation: there(row, SEEK_GENERATION)?,
        state: CursorState {
            place,
            accounted_until: there(row, ACCOUNTED_UNTIL)?,
            accounted_until_seq: there(row, ACCOUNTED_UNTIL_SEQ)?,
            incarnation: u32::try_from(there::<i64>(row, INCARNATION)?).unwrap_or_default(),
        },
        last_active: there(row, LAST_ACTIVE)?,
    })
}

/// A place as the columns place_at, place_id and place_offset.
fn columns(place: Place) -> Result<(TimestampWithTimeZone, i64, i32)> {
    let (at, id, offset) = match place {
        Place::Time { created_at, id, .. } => (created_at, id, 0),
        Place::Arrival { seq, offset, placed_ms } => (from_ms(placed_ms), seq, offset),
    };
    Ok((time(at)?, id, offset))
}

fn time(microseconds: i64) -> Result<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(microseconds).map_err(|_| Error::Internal("a time out of range"))
}

/// Creates a cursor. Returns false if the org already has one of this name.
pub fn create(
    name: &str,
    org: &str,
    by_arrival: bool,
    filter: Option<String>,
    initial: CursorState,
) -> Result<bool> {
    let [_, at, place, offset, accounted_until, accounted_until_seq, incarnation] = initial.arguments(0)?;
    let (name, org) = (arg(name.to_owned()), arg(org.to_owned()));
    let arguments = [
        name,
        org,
        arg(by_arrival),
        arg(filter),
        at,
        place,
        offset,
        accounted_until,
        accounted_until_seq,
        incarnation,
    ];
    Spi::connect_mut(|client| Ok(!CREATE.with(|create| create.run(client, &arguments))?.is_empty()))
}

/// Counts an org's unexpired cursors, up to `most`: committed ones, whatever the isolation level, and those that this
/// transaction created.
pub fn count(org: &str, most: i64) -> Result<i64> {
    let arguments = [datum(org)?, pg_sys::Datum::from(expired_before()), pg_sys::Datum::from(most)];
    let found = COUNT.with(|count| count.first_committed::<3, 1>(arguments))?;
    Ok(found.map_or(0, |[count]| count))
}

/// Cursors that were last used before this time have expired.
fn expired_before() -> i64 {
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    match settings::cursor_ttl() {
        0 => i64::MIN,
        kept => now - kept,
    }
}

impl DurableCursor {
    pub fn has_expired(&self) -> bool {
        self.last_active < expired_before()
    }

    pub fn move_to(&self, state: CursorState) -> Result<()> {
        self.write(&MOVE, state)
    }

    /// Moves the cursor and changes its seek generation, so that tokens fetched before are refused.
    pub fn seek(&self, state: CursorState) -> Result<()> {
        self.write(&SEEK, state)
    }

    fn write(&self, statement: &'static std::thread::LocalKey<Statement>, state: CursorState) -> Result<()> {
        let arguments = state.arguments(self.id)?;
        let is_there = Spi::connect_mut(|client| {
            Ok(!statement.with(|statement| statement.run(client, &arguments))?.is_empty())
        })?;
        if is_there { Ok(()) } else { Err(Error::NoCursor(self.name.clone())) }
    }

    /// Error if the cursor was dropped with its org: erasing an org does not wait for the cursor's lock.
    pub fn check(&self) -> Result<()> {
        let mut is_there = false;
        scan(c"durable_cursors_pkey", &[ScanKey::int8(CURSOR_ID, self.id)], |_| is_there = true)?;
        if is_there { Ok(()) } else { Err(Error::NoCursor(self.name.clone())) }
    }

    pub fn drop(&self) -> Result<()> {
        Spi::connect_mut(|client| DROP.with(|statement| statement.run(client, &[arg(self.id)]).map(drop)))
    }
}
