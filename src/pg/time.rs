//! Times: microseconds since the Unix epoch, and PostgreSQL's microseconds since 2000-01-01.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

/// Seconds between the Unix epoch and PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

unsafe extern "C" {
    /// PostgreSQL's own, without the guard that pgrx puts around what can raise: this is called for every row.
    fn GetCurrentStatementStartTimestamp() -> i64;
}

/// Microseconds since the Unix epoch as PostgreSQL counts them; infinities stay far away.
pub fn to_postgres_time(unix: i64) -> i64 {
    unix.saturating_sub(POSTGRES_EPOCH_SECONDS * 1_000_000)
}

/// PostgreSQL's microseconds as microseconds since the Unix epoch.
pub fn to_unix_time(postgres: i64) -> i64 {
    postgres.saturating_add(POSTGRES_EPOCH_SECONDS * 1_000_000)
}

/// The present, in microseconds since the Unix epoch.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    to_unix_time(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// The start of the running statement, in PostgreSQL's microseconds.
pub fn statement_start() -> i64 {
    // SAFETY: reads one variable.
    unsafe { GetCurrentStatementStartTimestamp() }
}

/// A time in PostgreSQL's microseconds.
pub fn micros(time: TimestampWithTimeZone) -> i64 {
    pg_sys::TimestampTz::from(time)
}
