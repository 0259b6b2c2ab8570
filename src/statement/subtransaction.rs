//! A part of a transaction that can be undone, with the locks it has taken.

use pgrx::{PgTryBuilder, pg_sys};

use crate::error::Result;

/// Runs the body in a subtransaction. That is rolled back unless the body says that it shall stay, or fails.
pub fn run<T>(body: impl FnOnce() -> Result<(T, bool)>) -> Result<T> {
    // SAFETY: as PL/pgSQL does it for a block with an exception handler.
    unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        let restore = move || {
            pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::CurrentResourceOwner = owner;
        };
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(memory);
        let mut body = Some(body);
        let attempt = std::panic::AssertUnwindSafe(move || body.take().map(|body| body()).transpose());
        let result = PgTryBuilder::new(attempt)
            .catch_others(move |caught| {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
                restore();
                caught.rethrow()
            })
            .execute();
        match &result {
            Ok(Some((_, true))) => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        restore();
        let result = result?.ok_or(crate::error::Error::Internal("a body that ran before"))?;
        Ok(result.0)
    }
}
