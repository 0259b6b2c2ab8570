//! One event as the column values of a row of tailstream.events.

use core::ffi::CStr;
use std::ffi::CString;

use pgrx::{IntoDatum, pg_sys};

use crate::error::{Error, Result};
use crate::event::{Event, Inet, STORED_V4, STORED_V6};
use crate::pg::streaming::detoasted;
use crate::pg::time::to_postgres_time;

/// A column of a table.
pub struct Column {
    pub name: &'static CStr,
    kind: pg_sys::Oid,
    not_null: bool,
}

impl Column {
    /// Whether this is what a table has there.
    pub fn is(&self, attribute: &pg_sys::FormData_pg_attribute) -> bool {
        attribute.atttypid == self.kind
            && !attribute.attisdropped
            && attribute.attnotnull == self.not_null
            && attribute.name().as_bytes() == self.name.to_bytes()
    }
}

/// The columns of tailstream.events in their order. Readers get all but the last.
pub const COLUMNS: [Column; 14] = [
    column(c"id", pg_sys::INT8OID, true),
    column(c"created_at", pg_sys::TIMESTAMPTZOID, true),
    column(c"org_id", pg_sys::TEXTOID, true),
    column(c"host", pg_sys::TEXTOID, false),
    column(c"method", pg_sys::TEXTOID, false),
    column(c"path", pg_sys::TEXTOID, false),
    column(c"status", pg_sys::INT4OID, false),
    column(c"response_time", pg_sys::INT4OID, false),
    column(c"response_size", pg_sys::INT8OID, false),
    column(c"user_agent", pg_sys::TEXTOID, false),
    column(c"referrer", pg_sys::TEXTOID, false),
    column(c"ip_address", pg_sys::INETOID, false),
    column(c"metadata", pg_sys::JSONBOID, false),
    column(c"tier", pg_sys::INT2OID, true),
];

const fn column(name: &'static CStr, kind: pg_sys::Oid, not_null: bool) -> Column {
    Column { name, kind, not_null }
}

const HEADER: usize = size_of::<u32>();

/// Column values of one row. Their bytes lie in `space`, which the next row uses again.
pub struct Row {
    pub values: [pg_sys::Datum; COLUMNS.len()],
    pub nulls: [bool; COLUMNS.len()],
    space: Vec<u64>,
    used: usize,
}

impl Row {
    /// For rows of one org in one tier; both must outlive it.
    pub fn new() -> Self {
        Self { values: [pg_sys::Datum::null(); _], nulls: [true; _], space: Vec::new(), used: 0 }
    }

    /// Takes the values of an event; what the row held before is gone.
    pub fn fill(&mut self, id: i64, org: &str, tier: i16, event: &Event) -> Result<()> {
        self.reserve(org, event);
        self.set(0, pg_sys::Datum::from(id));
        self.set(1, pg_sys::Datum::from(to_postgres_time(event.created_at)));
        self.set_text(2, Some(org));
        self.set_text(3, event.host.as_deref());
        self.set_text(4, Some(&event.method));
        self.set_text(5, Some(&event.path));
        self.set(6, pg_sys::Datum::from(event.status));
        self.set_value(7, event.response_time);
        self.set_value(8, event.response_size);
        self.set_text(9, event.user_agent.as_deref());
        self.set_text(10, event.referrer.as_deref());
        self.set_inet(11, event.ip_address);
        let metadata = event.metadata.as_deref().map(jsonb).transpose()?;
        self.set_datum(12, metadata);
        self.set(13, pg_sys::Datum::from(tier));
        Ok(())
    }

    /// Makes room for all that the row will hold: later it must not move.
    fn reserve(&mut self, org: &str, event: &Event) {
        let texts = [
            event.host.as_deref(),
            Some(&*event.method),
            Some(&*event.path),
            event.user_agent.as_deref(),
            event.referrer.as_deref(),
            Some(org),
        ];
        let bytes: usize = texts.iter().flatten().map(|text| text.len()).sum();
        let words = bytes / size_of::<u64>() + COLUMNS.len() * 4;
        self.used = 0;
        if self.space.len() < words {
            self.space.resize(words.next_power_of_two(), 0);
        }
    }

    fn set(&mut self, column: usize, value: pg_sys::Datum) {
        self.values[column] = value;
        self.nulls[column] = false;
    }

    fn set_datum(&mut self, column: usize, value: Option<pg_sys::Datum>) {
        match value {
            Some(value) => self.set(column, value),
            None => self.nulls[column] = true,
        }
    }

    fn set_value<T: Into<pg_sys::Datum>>(&mut self, column: usize, value: Option<T>) {
        self.set_datum(column, value.map(Into::into));
    }

    fn set_text(&mut self, column: usize, text: Option<&str>) {
        let datum = text.map(|text| self.varlena(&[text.as_bytes()]));
        self.set_datum(column, datum);
    }

    fn set_inet(&mut self, column: usize, address: Option<Inet>) {
        let datum = address.map(|address| match address {
            Inet::V4(bytes, prefix) => self.varlena(&[&[STORED_V4, prefix], &bytes]),
            Inet::V6(bytes, prefix) => self.varlena(&[&[STORED_V6, prefix], &bytes]),
        });
        self.set_datum(column, datum);
    }

    /// Lays down a value of variable length with its four-byte header.
    fn varlena(&mut self, parts: &[&[u8]]) -> pg_sys::Datum {
        let length = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
        let words = length.div_ceil(size_of::<u64>());
        let place = &mut self.space[self.used..self.used + words];
        self.used += words;
        let start = place.as_mut_ptr().cast::<u8>();
        // SAFETY: `place` has room for header and parts and is aligned for the header.
        unsafe {
            pgrx::varlena::set_varsize_4b(start.cast(), length as i32);
            let mut end = start.add(HEADER);
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), end, part.len());
                end = end.add(part.len());
            }
        }
        pg_sys::Datum::from(start)
    }
}

/// The address of an `inet` value; `None` if it has neither family.
///
/// # Safety
/// The value must be an `inet`, and not NULL.
pub unsafe fn inet(value: pg_sys::Datum) -> Option<Inet> {
    // SAFETY: the caller's promise; a packed value has its bytes behind the header, wherever that ends.
    unsafe {
        let stored = detoasted(value);
        let (start, length) = (pgrx::varlena::vardata_any(stored), pgrx::varlena::varsize_any_exhdr(stored));
        Inet::from_stored(core::slice::from_raw_parts(start.cast(), length))
    }
}

/// JSON text as jsonb, allocated in the current memory context.
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
