//! The table `tailstream.events` and the values of its columns.

use core::ffi::CStr;
use std::ffi::CString;

use pgrx::{IntoDatum, pg_sys};

use super::table::{Column, Table};
use crate::error::{Error, Result};
use crate::event::Inet;
use crate::pg::streaming::detoasted;

/// All columns in their order. Readers get all but the last.
pub static COLUMNS: [Column; 14] = [
    Column::new(c"id", pg_sys::INT8OID, true),
    Column::new(c"created_at", pg_sys::TIMESTAMPTZOID, true),
    Column::new(c"org_id", pg_sys::TEXTOID, true),
    Column::new(c"host", pg_sys::TEXTOID, false),
    Column::new(c"method", pg_sys::TEXTOID, false),
    Column::new(c"path", pg_sys::TEXTOID, false),
    Column::new(c"status", pg_sys::INT4OID, false),
    Column::new(c"response_time", pg_sys::INT4OID, false),
    Column::new(c"response_size", pg_sys::INT8OID, false),
    Column::new(c"user_agent", pg_sys::TEXTOID, false),
    Column::new(c"referrer", pg_sys::TEXTOID, false),
    Column::new(c"ip_address", pg_sys::INETOID, false),
    Column::new(c"metadata", pg_sys::JSONBOID, false),
    Column::new(c"tier", pg_sys::INT2OID, true),
];

/// The table.
pub static EVENTS: Table = Table { name: c"events", columns: &COLUMNS };

/// The address of an `inet` value; `None` if its family is unknown.
///
/// # Safety
/// The value must be an `inet`, and not NULL.
pub unsafe fn inet(value: pg_sys::Datum) -> Option<Inet> {
    // SAFETY: the caller's promise; the bytes follow the header, whether it is short or long.
    unsafe {
        let stored = detoasted(value);
        let (start, length) = (pgrx::varlena::vardata_any(stored), pgrx::varlena::varsize_any_exhdr(stored));
        Inet::from_stored(core::slice::from_raw_parts(start.cast(), length))
    }
}

/// JSON text as `jsonb`, allocated in the current memory context.
pub fn jsonb(text: &str) -> Result<pg_sys::Datum> {
    let text = CString::new(text).map_err(|_| Error::Internal("metadata with a NUL byte"))?;
    // SAFETY: jsonb_in takes a C string and returns a jsonb.
    let datum =
        unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.as_c_str().into_datum()]) };
    datum.ok_or(Error::Internal("jsonb_in returned NULL"))
}

/// The text of a `jsonb` value, in the current memory context.
///
/// # Safety
/// The value must be a `jsonb`, and not NULL.
pub unsafe fn jsonb_text<'a>(value: pg_sys::Datum) -> Option<&'a str> {
    // SAFETY: the caller's promise; jsonb_out returns a C string, and the database is UTF-8.
    let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(value)]) };
    text.and_then(|text| text.to_str().ok())
}
