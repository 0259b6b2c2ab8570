//! Locks on objects that have no row, held until the transaction ends.
//!
//! They are not advisory locks: any role could acquire those and block other users.

use pgrx::pg_sys;

/// The result of an attempt to acquire a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// Another transaction holds it.
    No,
    Now,
    /// This transaction already held it.
    Before,
}

/// Bits of the lock tag's last field that hold the class.
const CLASS_BITS: u32 = 3;

/// Acquires an object lock of PostgreSQL on `relation` as if that were a catalog; no SQL command creates such a tag. `class`
/// is below 8. The tag has room for the lowest 45 bits of the key; two keys that collide wait for each other.
pub fn acquire(relation: pg_sys::Oid, class: u16, key: u64, mode: u32, only_if_free: bool) -> Acquired {
    // SAFETY: reads one variable; the tag lives through the call.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: relation.to_u32(),
            locktag_field3: key as u32,
            locktag_field4: class | ((key >> 32) as u16) << CLASS_BITS,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        use pg_sys::LockAcquireResult::{LOCKACQUIRE_NOT_AVAIL, LOCKACQUIRE_OK};
        match pg_sys::LockAcquire(&tag, mode as i32, false, only_if_free) {
            LOCKACQUIRE_NOT_AVAIL => Acquired::No,
            LOCKACQUIRE_OK => {
                // The previous holder may have changed what this session caches. PostgreSQL does the same after locking a table.
                pg_sys::AcceptInvalidationMessages();
                Acquired::Now
            }
            _ => Acquired::Before,
        }
    }
}
