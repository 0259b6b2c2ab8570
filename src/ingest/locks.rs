//! Advisory locks, all held until the transaction ends.

use pgrx::{IntoDatum, pg_sys};

// First keys of PostgreSQL's two-key advisory locks: "taor", "taky".
const ORGS: i32 = 0x7461_6f72;
const IDEMPOTENCY_KEYS: i32 = 0x7461_6b79;

/// Any number of transactions may ingest for an org at once.
pub fn ingesting_org(org: &str) {
    lock(pg_sys::pg_advisory_xact_lock_shared_int4, ORGS, hash(&[org]));
}

/// Waits until nobody ingests for the org, and keeps everybody from it.
pub fn erasing_org(org: &str) {
    lock(pg_sys::pg_advisory_xact_lock_int4, ORGS, hash(&[org]));
}

/// Only one transaction at a time may store a batch with this key.
pub fn idempotency_key(org: &str, key: &str) {
    lock(pg_sys::pg_advisory_xact_lock_int4, IDEMPOTENCY_KEYS, hash(&[org, "\0", key]));
}

fn lock(function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum, class: i32, key: i32) {
    // SAFETY: both functions take two integers and return nothing.
    unsafe { pgrx::direct_function_call_as_datum(function, &[class.into_datum(), key.into_datum()]) };
}

/// FNV-1a: the same in every build. Two that collide wait for each other, no more.
fn hash(parts: &[&str]) -> i32 {
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).cast_signed()
}
