//! Snapshots for statements that are not run through SPI's own management.

use pgrx::pg_sys;

/// A snapshot of this very moment, in a transaction that has one already.
pub fn latest<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: as below.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = body();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// The transaction's snapshot: under READ COMMITTED a new one.
pub fn current<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; popped again, or with the transaction if an error passes.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = body();
        pg_sys::PopActiveSnapshot();
        result
    }
}
