//! The locks of ingest, erasure, purge and cursors. All are held until the transaction ends.

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::object_lock::Acquired;
use crate::pg::{catalog, object_lock};

/// What is locked.
#[derive(Clone, Copy)]
enum Subject {
    Org = 1,
    IdempotencyKey = 2,
    Purge = 3,
    Cursor = 4,
    CursorsOfOrg = 5,
}

/// Any number of transactions may ingest for an org at once.
pub fn ingesting_org(org: &str) -> Result<()> {
    acquire(Subject::Org, hash(&[org]), pg_sys::ShareLock, false).map(drop)
}

/// Waits until no transaction ingests for the org, and blocks new ones.
pub fn erasing_org(org: &str) -> Result<()> {
    acquire(Subject::Org, hash(&[org]), pg_sys::ExclusiveLock, false).map(drop)
}

/// Only one transaction at a time may store a batch with this key.
pub fn idempotency_key(org: &str, key: &str) -> Result<()> {
    acquire(Subject::IdempotencyKey, hash(&[org, "\0", key]), pg_sys::ExclusiveLock, false).map(drop)
}

/// Whether this transaction is the only one that purges. Does not wait.
pub fn purging() -> Result<bool> {
    Ok(acquire(Subject::Purge, 0, pg_sys::ExclusiveLock, true)? != Acquired::No)
}

/// Waits until no transaction purges, and blocks new purges.
pub fn keeping_purge_away() -> Result<()> {
    acquire(Subject::Purge, 0, pg_sys::ExclusiveLock, false).map(drop)
}

/// Makes this transaction the only one that uses the durable cursor. Waits unless `only_if_free`.
pub fn cursor(id: i64, only_if_free: bool) -> Result<Acquired> {
    acquire(Subject::Cursor, id as u64, pg_sys::ExclusiveLock, only_if_free)
}

/// Only one transaction at a time may create cursors of an org, where their number is limited.
pub fn creating_cursor(org: &str) -> Result<()> {
    acquire(Subject::CursorsOfOrg, hash(&[org]), pg_sys::ExclusiveLock, false).map(drop)
}

fn acquire(subject: Subject, key: u64, mode: u32, only_if_free: bool) -> Result<Acquired> {
    let orgs = catalog::relation(catalog::schema()?, c"orgs")?;
    Ok(object_lock::acquire(orgs, subject as u16, key, mode, only_if_free))
}

/// Finding a key that collides with another org's takes years, and then the two only wait for each other.
fn hash(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]))
}
