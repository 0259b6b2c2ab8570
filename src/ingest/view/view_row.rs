//! Converts a row that is inserted into the view to an event.

use std::borrow::Cow;

use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::super::batch::invalid;

use crate::error::{Error, Result};
use crate::event::{
    Clock, Event, EventColumns, Format, Inet, MAX_EVENT_BYTES, MIN_CREATED_AT, OnInvalid, Problem, decode,
    encode, encoded_length,
};
use crate::pg::time::{to_postgres_time, to_unix_time};
use crate::session::org_scope;
use crate::settings;
use crate::storage::events::{inet, jsonb, jsonb_text};

/// Number of columns of the view: those of `tailstream.events` without the tier.
const COLUMNS: usize = 13;
const ID: usize = 0;
const CREATED_AT: usize = 1;
const ORG_ID: usize = 2;
const HOST: usize = 3;
const METHOD: usize = 4;
const PATH: usize = 5;
const STATUS: usize = 6;
const RESPONSE_TIME: usize = 7;
const RESPONSE_SIZE: usize = 8;
const USER_AGENT: usize = 9;
const REFERRER: usize = 10;
const IP_ADDRESS: usize = 11;
const METADATA: usize = 12;

/// The column values. They are valid during the call of the trigger.
pub struct ViewRow {
    descriptor: pg_sys::TupleDesc,
    values: [pg_sys::Datum; COLUMNS],
    nulls: [bool; COLUMNS],
}

impl ViewRow {
    /// # Safety
    /// `trigger` must come from PostgreSQL, for a row trigger on the view.
    pub unsafe fn open(trigger: &pg_sys::TriggerData) -> Result<Self> {
        let mut row = Self {
            descriptor: std::ptr::null_mut(),
            values: [pg_sys::Datum::null(); COLUMNS],
            nulls: [true; COLUMNS],
        };
        // SAFETY: the caller's promise; the arrays have one element for each column.
        unsafe {
            row.descriptor = (*trigger.tg_relation).rd_att;
            if (*row.descriptor).natts != COLUMNS as i32 {
                return Err(Error::Internal("view log_events has other columns"));
            }
            let (values, nulls) = (row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
            pg_sys::heap_deform_tuple(trigger.tg_trigtuple, row.descriptor, values, nulls);
        }
        Ok(row)
    }

    /// Sets defaults and converts the row. `now` is in microseconds since the Unix epoch.
    pub fn complete(&mut self, now: i64) -> Result<Event<'static>> {
        self.default(CREATED_AT, || to_postgres_time(now).into_datum());
        self.default(ORG_ID, || org_scope::bound_org().into_datum());
        self.default(METHOD, || "GET".into_datum());
        self.default(PATH, || "/".into_datum());
        self.default(STATUS, || 200.into_datum());
        let clock = Clock { now, max_future: now + settings::max_future_skew() };
        self.check_size()?;
        Ok(Event {
            created_at: self.created_at(&clock)?,
            host: self.text(HOST),
            method: self.text(METHOD).unwrap_or_default(),
            path: self.text(PATH).unwrap_or_default(),
            status: self.value(STATUS).unwrap_or_default(),
            response_time: self.value(RESPONSE_TIME),
            response_size: self.value(RESPONSE_SIZE),
            user_agent: self.text(USER_AGENT),
            referrer: self.text(REFERRER),
            ip_address: self.ip_address(),
            metadata: self.metadata(&clock)?,
        })
    }

    /// Error if the event is too large as JSON. The size of the metadata is checked where it is parsed.
    fn check_size(&self) -> Result<()> {
        let texts = [HOST, METHOD, PATH, USER_AGENT, REFERRER];
        let texts = texts.into_iter().filter_map(|column| self.value::<&str>(column));
        if encoded_length(texts) > MAX_EVENT_BYTES {
            return Err(invalid(Problem::TooLarge { what: "the event" }.into()));
        }
        Ok(())
    }

    pub fn org(&self) -> Result<&str> {
        self.value(ORG_ID).ok_or(Error::NoOrg)
    }

    /// The row as it will be stored, for RETURNING.
    pub fn with_id(mut self, id: i64) -> pg_sys::Datum {
        self.set(ID, id.into_datum());
        // SAFETY: the values are of the descriptor's types.
        let tuple = unsafe {
            pg_sys::heap_form_tuple(self.descriptor, self.values.as_mut_ptr(), self.nulls.as_mut_ptr())
        };
        pg_sys::Datum::from(tuple)
    }

    fn set(&mut self, column: usize, value: Option<pg_sys::Datum>) {
        self.nulls[column] = value.is_none();
        self.values[column] = value.unwrap_or(pg_sys::Datum::null());
    }

    fn default(&mut self, column: usize, value: impl FnOnce() -> Option<pg_sys::Datum>) {
        if self.nulls[column] {
            self.set(column, value());
        }
    }

    /// `None` for NULL.
    fn value<T: FromDatum>(&self, column: usize) -> Option<T> {
        // SAFETY: the callers ask for the type of the column.
        unsafe { T::from_datum(self.values[column], self.nulls[column]) }
    }

    fn text(&self, column: usize) -> Option<Cow<'static, str>> {
        self.value::<String>(column).map(Cow::Owned)
    }

    /// Microseconds since the Unix epoch. Error under the same conditions as for a JSON event.
    fn created_at(&self, clock: &Clock) -> Result<i64> {
        let created_at = self.value(CREATED_AT).unwrap_or_default();
        if created_at == i64::MIN || created_at == i64::MAX {
            return Err(Error::InfiniteTime);
        }
        let created_at = to_unix_time(created_at);
        if !(MIN_CREATED_AT..=clock.max_future).contains(&created_at) {
            let event = encode(&EventColumns { created_at, ..EventColumns::default() });
            decoded(&event, clock)?;
        }
        Ok(created_at)
    }

    fn ip_address(&self) -> Option<Inet> {
        // SAFETY: the column is an inet.
        (!self.nulls[IP_ADDRESS]).then(|| unsafe { inet(self.values[IP_ADDRESS]) }).flatten()
    }

    /// The metadata as a JSON event would have it: always an object.
    fn metadata(&mut self, clock: &Clock) -> Result<Option<String>> {
        if self.nulls[METADATA] {
            return Ok(None);
        }
        // SAFETY: the column is a jsonb.
        let text = unsafe { jsonb_text(self.values[METADATA]) }.unwrap_or_default();
        let metadata = decoded(&format!("{{\"metadata\":{text}}}"), clock)?;
        match &metadata {
            None => self.set(METADATA, None),
            Some(object) if !text.starts_with('{') => self.set(METADATA, Some(jsonb(object)?)),
            Some(_) => {}
        }
        Ok(metadata)
    }
}

/// Decodes an event and returns its metadata.
fn decoded(event: &str, clock: &Clock) -> Result<Option<String>> {
    let decoded = decode(Format::Json, event, clock, OnInvalid::Error).map_err(invalid)?;
    Ok(decoded.events.into_iter().next().and_then(|event| event.metadata))
}
