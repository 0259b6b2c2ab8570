//! Batch ids and event ids. An event id is its batch's id and the event's offset in the batch.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use crate::error::Result;
use crate::pg::catalog;

/// Low bits of an event id that hold the offset.
const OFFSET_BITS: u32 = 16;

/// Most events of one batch.
pub const MAX_EVENTS: usize = 1 << OFFSET_BITS;

unsafe extern "C-unwind" {
    /// PostgreSQL's own `nextval`, which can omit the check of the caller's privileges.
    fn nextval_internal(sequence: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// The id of the event at `offset` in a batch.
pub fn event_id(batch_id: i64, offset: i32) -> i64 {
    (batch_id << OFFSET_BITS) + i64::from(offset)
}

/// The batch of an event.
pub fn batch_of(event_id: i64) -> i64 {
    event_id >> OFFSET_BITS
}

/// The offset of an event in its batch.
pub fn offset_of(event_id: i64) -> i32 {
    (event_id & (MAX_EVENTS as i64 - 1)) as i32
}

/// Draws a batch id from the sequence, whatever privileges the caller has.
pub fn next_batch_id() -> Result<i64> {
    let sequence = catalog::relation(catalog::schema()?, c"batch_id_seq")?;
    // SAFETY: a sequence; an error that it raises passes the guard.
    Ok(unsafe { pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) })
}
