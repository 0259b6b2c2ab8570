//! Runs a closure under an active snapshot.

use pgrx::pg_sys;

/// Everything that is committed now, under any isolation level. The transaction must already have a snapshot.
pub fn latest<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: as below.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = body();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// The transaction snapshot: under READ COMMITTED a new one.
pub fn current<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; popped again, or with the transaction if an error passes.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = body();
        pg_sys::PopActiveSnapshot();
        result
    }
}
