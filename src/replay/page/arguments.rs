//! Arguments of several functions.

use core::ffi::CStr;

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::replay::filter::{Filter, MAX_LENGTH};

/// Most events that one call returns.
const MAX_PAGE: i32 = 100_000;

/// A number of events.
pub fn page_size(what: &'static str, value: Option<i32>) -> Result<usize> {
    let value = value.ok_or(Error::NullArgument(what))?;
    match usize::try_from(value) {
        Ok(size @ 1..) if value <= MAX_PAGE => Ok(size),
        _ => Err(Error::BadArgument { what, value: value.to_string(), hint: "It is 1 to 100000." }),
    }
}

/// Most bytes of a jsonb whose text has the greatest length of a filter.
const MAX_FILTER: usize = 16 * MAX_LENGTH;

/// Reads a filter from a jsonb argument.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function whose argument `index` is a jsonb.
pub unsafe fn filter_argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Result<Filter> {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(value) = pgrx::fcinfo::pg_getarg_datum(fcinfo, index) else { return Ok(Filter::default()) };
        // Checked before it is decompressed: a failed allocation is an error in PostgreSQL, but ends the process in Rust.
        let size = pg_sys::toast_raw_datum_size(value);
        if size > MAX_FILTER {
            return Err(Filter::too_long(size));
        }
        let text = json(value).map_or(&b"null"[..], CStr::to_bytes);
        if text.len() > MAX_LENGTH {
            return Err(Filter::too_long(text.len()));
        }
        Filter::parse(&String::from_utf8_lossy(text))
    }
}

/// A jsonb as text.
///
/// # Safety
/// The value must be a jsonb.
pub unsafe fn json_text(value: pg_sys::Datum) -> Option<String> {
    // SAFETY: the caller's promise.
    unsafe { json(value) }.map(|text| text.to_string_lossy().into_owned())
}

/// # Safety
/// As above. The text lives as long as the current memory context.
unsafe fn json<'a>(value: pg_sys::Datum) -> Option<&'a CStr> {
    // SAFETY: the caller's promise; jsonb_out returns a C string.
    unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(value)]) }
}

/// A value for an error message, truncated.
pub fn quoted(value: Option<&str>) -> String {
    value.map_or("NULL".into(), |value| format!("\"{}\"", value.chars().take(80).collect::<String>()))
}
