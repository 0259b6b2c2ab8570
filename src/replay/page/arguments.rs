//! Arguments that several functions take.

use core::ffi::CStr;

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::replay::filter::Filter;

/// Events that one call returns at the most.
const MAX_PAGE: i32 = 100_000;

/// A number of events.
pub fn page_size(what: &'static str, value: Option<i32>) -> Result<usize> {
    let value = value.ok_or(Error::NullArgument(what))?;
    match usize::try_from(value) {
        Ok(size @ 1..) if value <= MAX_PAGE => Ok(size),
        _ => Err(Error::BadArgument { what, value: value.to_string(), hint: "It is 1 to 100000." }),
    }
}

/// The filter that a jsonb argument is.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function whose argument `index` is a jsonb.
pub unsafe fn filter_argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Result<Filter> {
    // SAFETY: the caller's promise.
    let text = unsafe { pgrx::fcinfo::pg_getarg_datum(fcinfo, index).and_then(|value| json_text(value)) };
    text.map_or(Ok(Filter::default()), |text| Filter::parse(&text))
}

/// A jsonb as text.
///
/// # Safety
/// The value must be a jsonb.
pub unsafe fn json_text(value: pg_sys::Datum) -> Option<String> {
    // SAFETY: the caller's promise; jsonb_out returns a C string.
    let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(value)]) };
    text.map(|text| text.to_string_lossy().into_owned())
}

/// A value for a message, cut to a length that fits one.
pub fn quoted(value: Option<&str>) -> String {
    value.map_or("NULL".into(), |value| format!("\"{}\"", value.chars().take(80).collect::<String>()))
}
