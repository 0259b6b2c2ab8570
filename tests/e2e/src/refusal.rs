//! Errors that a test expects.

use postgres::error::DbError;

/// The SQLSTATE, or why there is none.
pub fn sqlstate(error: &postgres::Error) -> String {
    error.code().map_or_else(|| format!("no SQLSTATE: {error:?}"), |code| code.code().to_owned())
}

/// The error of something that must fail with one of these SQLSTATEs.
#[track_caller]
pub fn refused<T>(what: &str, result: Result<T, postgres::Error>, expected: &[&str]) -> DbError {
    let Err(error) = result else {
        panic!("{what}: succeeded, expected {expected:?}");
    };
    let state = sqlstate(&error);
    let Some(details) = error.as_db_error() else {
        panic!("{what}: {state}, expected {expected:?}");
    };
    assert!(expected.contains(&state.as_str()), "{what}: {state} {details}, expected {expected:?}");
    details.clone()
}
