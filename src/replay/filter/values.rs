//! The values of a filter as PostgreSQL's datums.

use std::ffi::CString;

use pgrx::{IntoDatum, pg_sys};

use super::Filter;
use crate::error::{Error, Result};

/// The values live as long as the memory context in which they were made.
#[derive(Clone, Copy, Default)]
pub struct Values {
    method: Option<pg_sys::Datum>,
    host: Option<pg_sys::Datum>,
    path: Option<pg_sys::Datum>,
    metadata: Option<pg_sys::Datum>,
}

impl Values {
    /// Makes the values in the current memory context.
    pub fn of(filter: &Filter) -> Result<Self> {
        let array = |list: &Option<Vec<String>>| list.clone().and_then(IntoDatum::into_datum);
        let metadata = filter.metadata.as_deref().map(jsonb).transpose()?;
        let (method, host, path) = (array(&filter.method), array(&filter.host), array(&filter.path));
        Ok(Self { method, host, path, metadata })
    }

    pub(super) fn metadata(&self) -> Option<pg_sys::Datum> {
        self.metadata
    }

    /// The arguments of `Filter::condition`.
    pub fn arguments(&self) -> [Option<pg_sys::Datum>; 4] {
        [self.method, self.host, self.path, self.metadata]
    }
}

fn jsonb(text: &str) -> Result<pg_sys::Datum> {
    let text = CString::new(text).map_err(|_| Error::Internal("JSON with a NUL in it"))?;
    // SAFETY: jsonb_in takes a C string and returns a jsonb.
    let value = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))])
    };
    value.ok_or(Error::Internal("no jsonb"))
}
