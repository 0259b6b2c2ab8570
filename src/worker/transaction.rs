//! Transactions of a worker. An error rolls the transaction back and is returned as a value.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};

use crate::error::{Error, Result};

/// Which snapshots the statements use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement has its own.
    ReadCommitted,
    /// All have the same.
    RepeatableRead,
}

/// Runs `body` in a transaction: committed if it returns a value, rolled back if it returns or raises an error.
pub fn run<T>(isolation: Isolation, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut body = Some(body);
    let attempt = AssertUnwindSafe(|| {
        // SAFETY: the sequence of PostgreSQL's own workers.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            if isolation == Isolation::RepeatableRead {
                pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as i32;
            }
        }
        let result = body.take().map_or(Err(Error::Internal("a body that ran before")), |body| body());
        // SAFETY: as above.
        unsafe {
            if result.is_ok() {
                pg_sys::CommitTransactionCommand();
            } else {
                pg_sys::AbortCurrentTransaction();
            }
        }
        result
    });
    PgTryBuilder::new(attempt)
        .catch_others(|caught| {
            // SAFETY: ends whatever the error left.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(Error::Worker(message(&caught)))
        })
        .execute()
}

fn message(caught: &CaughtError) -> String {
    match caught {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
        CaughtError::RustPanic { ereport, .. } => format!("internal error: {}", ereport.message()),
    }
}
