//! Subtransactions, which can be rolled back with the locks that they acquired.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use crate::error::{Error, Result};

/// Most attempts of a body that meets dropped chunks.
const ATTEMPTS: usize = 10;

/// Runs the body in a subtransaction. The subtransaction is committed if the body returns true, and rolled back if it returns
/// false or fails.
pub fn run<T>(body: impl FnOnce() -> Result<(T, bool)>) -> Result<T> {
    match enter(body) {
        Ok(result) => result,
        Err(caught) => caught.rethrow(),
    }
}

/// Runs the body, and runs it again if PostgreSQL or TimescaleDB fails because a chunk was dropped concurrently: a chunk may
/// still be listed when it can no longer be opened. The body must be repeatable.
pub fn again_without_dropped_chunks<T>(mut body: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match enter(|| body().map(|value| (value, true))) {
            Ok(result) => return result,
            Err(caught) if attempt < ATTEMPTS && is_of_dropped_chunk(&caught) => {
                // SAFETY: inside a transaction.
                unsafe { pg_sys::AcceptInvalidationMessages() };
            }
            Err(caught) => caught.rethrow(),
        }
    }
}

fn is_of_dropped_chunk(caught: &CaughtError) -> bool {
    let (CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) = caught else {
        return false;
    };
    let message = report.message();
    match report.sql_error_code() {
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE => true,
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR => {
            message.starts_with("could not open relation with OID")
                || message.starts_with("cache lookup failed for relation")
                || message.starts_with("relation \"") && message.ends_with("\" not found")
        }
        _ => false,
    }
}

/// The body's result, or the error that it raised. The subtransaction is rolled back after an error.
fn enter<T>(body: impl FnOnce() -> Result<(T, bool)>) -> std::result::Result<Result<T>, Box<CaughtError>> {
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
        let attempt = std::panic::AssertUnwindSafe(move || {
            let result = body.take().map(|body| body()).transpose();
            Ok::<_, Box<CaughtError>>(result)
        });
        let caught = PgTryBuilder::new(attempt).catch_others(|caught| Err(Box::new(caught))).execute();
        match &caught {
            Ok(Ok(Some((_, true)))) => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        restore();
        let gone = || Error::Internal("a body that ran before");
        caught.map(|result| result.and_then(|value| value.ok_or_else(gone)).map(|(value, _)| value))
    }
}
