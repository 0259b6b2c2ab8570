//! Locks on what has no row to lock, all held until the transaction ends.
//!
//! Not advisory locks: any role could take those, and keep a foreign org's ingest or the purge from running.

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::catalog;

/// What is locked; told apart in the lock's last field.
#[derive(Clone, Copy)]
enum Subject {
    Org = 1,
    IdempotencyKey = 2,
    Purge = 3,
    Cursor = 4,
    CursorsOfOrg = 5,
}

/// Of the lock's last field.
const SUBJECT_BITS: u32 = 3;

/// What became of the wish for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Somebody else has it.
    No,
    Now,
    /// This transaction had it already.
    Before,
}

/// Any number of transactions may ingest for an org at once.
pub fn ingesting_org(org: &str) -> Result<()> {
    acquire(Subject::Org, hash(&[org]), pg_sys::ShareLock, false).map(drop)
}

/// Waits until nobody ingests for the org, and keeps everybody from it.
pub fn erasing_org(org: &str) -> Result<()> {
    acquire(Subject::Org, hash(&[org]), pg_sys::ExclusiveLock, false).map(drop)
}

/// Only one transaction at a time may store a batch with this key.
pub fn idempotency_key(org: &str, key: &str) -> Result<()> {
    acquire(Subject::IdempotencyKey, hash(&[org, "\0", key]), pg_sys::ExclusiveLock, false).map(drop)
}

/// Whether this transaction is the only one that purges; does not wait.
pub fn purging() -> Result<bool> {
    Ok(acquire(Subject::Purge, 0, pg_sys::ExclusiveLock, true)? != Taken::No)
}

/// Waits until nobody purges, and keeps everybody from it.
pub fn keeping_purge_away() -> Result<()> {
    acquire(Subject::Purge, 0, pg_sys::ExclusiveLock, false).map(drop)
}

/// Makes this transaction the only one that uses this durable cursor; waits for it unless told not to.
pub fn cursor(id: i64, only_if_free: bool) -> Result<Taken> {
    acquire(Subject::Cursor, id as u64, pg_sys::ExclusiveLock, only_if_free)
}

/// Only one transaction at a time may create cursors of an org that has a limit.
pub fn creating_cursor(org: &str) -> Result<()> {
    acquire(Subject::CursorsOfOrg, hash(&[org]), pg_sys::ExclusiveLock, false).map(drop)
}

/// An object lock as PostgreSQL's own, on table orgs as if it were a catalog: no SQL command makes that tag. It has room for
/// the lowest 45 bits of the key.
fn acquire(subject: Subject, key: u64, mode: u32, only_if_free: bool) -> Result<Taken> {
    let orgs = catalog::relation(catalog::schema()?, c"orgs")?;
    // SAFETY: reads one variable; the tag lives through the call.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: orgs.to_u32(),
            locktag_field3: key as u32,
            locktag_field4: subject as u16 | ((key >> 32) as u16) << SUBJECT_BITS,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        use pg_sys::LockAcquireResult::{LOCKACQUIRE_NOT_AVAIL, LOCKACQUIRE_OK};
        Ok(match pg_sys::LockAcquire(&tag, mode as i32, false, only_if_free) {
            LOCKACQUIRE_NOT_AVAIL => Taken::No,
            LOCKACQUIRE_OK => {
                // Who had it may have changed what this session remembers: PostgreSQL does the same for a table's lock.
                pg_sys::AcceptInvalidationMessages();
                Taken::Now
            }
            _ => Taken::Before,
        })
    }
}

/// Two that collide wait for each other, no more; it takes years to find one that collides with another org's.
fn hash(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 8]))
}
