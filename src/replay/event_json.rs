//! `ts_event`: a stored row as the JSON of its event.

use core::ffi::CStr;
use std::num::NonZeroUsize;

use pgrx::{FromDatum, PgTupleDesc, pg_sys};

use crate::error::{Error, Result, report};
use crate::event::{EventColumns, encode};
use crate::pg::function::pg_function;
use crate::pg::time::to_unix_time;
use crate::storage::events::{inet, jsonb_text};

pg_function! {
    /// `ts_event(event record) → json`
    fn ts_event_wrapper(fcinfo) -> Datum {
        // SAFETY: PostgreSQL calls this with one composite value that is not NULL (STRICT).
        let row = unsafe { Record::open(pgrx::fcinfo::pg_getarg_datum_raw(fcinfo, 0)) };
        if row.text(c"kind") == Some("gap") {
            // A gap row of a page.
            // SAFETY: PostgreSQL's own structure for the call.
            unsafe { (*fcinfo).isnull = true };
            return pg_sys::Datum::null();
        }
        pgrx::IntoDatum::into_datum(report(row.encode())).unwrap_or(pg_sys::Datum::null())
    }
}

/// A composite value.
struct Record {
    tuple: pg_sys::HeapTupleData,
    descriptor: PgTupleDesc<'static>,
}

impl Record {
    /// # Safety
    /// The datum must be a composite value that outlives the record.
    unsafe fn open(datum: pg_sys::Datum) -> Self {
        // SAFETY: a composite value contains its type, whose descriptor is released when dropped.
        unsafe {
            let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
            let kind = (*header).t_choice.t_datum;
            let descriptor = pg_sys::lookup_rowtype_tupdesc(kind.datum_typeid, kind.datum_typmod);
            let t_len = pgrx::varlena::varsize_any(header.cast()) as u32;
            let tuple = pg_sys::HeapTupleData { t_len, t_data: header, ..Default::default() };
            Self { tuple, descriptor: PgTupleDesc::from_pg(descriptor) }
        }
    }

    /// The value of the column of this name and type; `None` if it is NULL or there is none.
    fn get<T: FromDatum>(&self, name: &CStr, kind: pg_sys::Oid) -> Option<T> {
        // SAFETY: the type was compared before the value is taken as one.
        self.datum(name, kind).and_then(|value| unsafe { T::from_datum(value, false) })
    }

    fn datum(&self, name: &CStr, kind: pg_sys::Oid) -> Option<pg_sys::Datum> {
        let number = self.descriptor.iter().position(|attribute| {
            attribute.atttypid == kind
                && !attribute.attisdropped
                && attribute.name().as_bytes() == name.to_bytes()
        })?;
        let tuple = (&raw const self.tuple).cast_mut();
        // SAFETY: the descriptor is the tuple's.
        unsafe {
            pgrx::htup::heap_getattr_raw(tuple, NonZeroUsize::new(number + 1)?, self.descriptor.as_ptr())
        }
    }

    fn text(&self, name: &CStr) -> Option<&str> {
        self.get(name, pg_sys::TEXTOID)
    }

    fn encode(&self) -> Result<String> {
        let created_at = self.get::<i64>(c"created_at", pg_sys::TIMESTAMPTZOID).ok_or(Error::NotAnEvent)?;
        if created_at == i64::MIN || created_at == i64::MAX {
            return Err(Error::InfiniteTime);
        }
        let metadata = self.datum(c"metadata", pg_sys::JSONBOID);
        let address = self.datum(c"ip_address", pg_sys::INETOID);
        Ok(encode(&EventColumns {
            created_at: to_unix_time(created_at),
            host: self.text(c"host"),
            method: self.text(c"method"),
            path: self.text(c"path"),
            status: self.get(c"status", pg_sys::INT4OID),
            response_time: self.get(c"response_time", pg_sys::INT4OID),
            response_size: self.get(c"response_size", pg_sys::INT8OID),
            user_agent: self.text(c"user_agent"),
            referrer: self.text(c"referrer"),
            // SAFETY: `datum` only returns columns of the requested type.
            ip_address: address.and_then(|value| unsafe { inet(value) }),
            // SAFETY: `datum` only returns columns of the requested type.
            metadata: metadata.and_then(|value| unsafe { jsonb_text(value) }),
        }))
    }
}
