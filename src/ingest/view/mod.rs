//! `INSERT INTO tailstream.log_events`: the rows of one statement are one batch for each org.
//!
//! A row trigger collects the rows and assigns their ids, so that RETURNING shows them. The statement trigger stores the
//! collected rows. The row trigger runs with the caller's privileges and reads and writes no table; the statement trigger runs
//! with those of the owner, as `ts_ingest` does.

pub mod always_fire;
pub mod pending;
mod view_row;

use core::ffi::CStr;
use std::time::Instant;

use pgrx::pg_sys;

use super::batch;
use crate::error::{Error, Result, report};
use crate::pg::function::pg_function;
use crate::pg::time;
use view_row::ViewRow;

/// Name of the statement trigger.
const STORE: &CStr = c"log_events_store";

pg_function! {
    /// `tailstream.insert_log_event()`: INSTEAD OF INSERT … FOR EACH ROW
    fn insert_log_event_wrapper(fcinfo) -> Datum {
        // SAFETY: PostgreSQL's own structure for the call.
        report(unsafe { trigger(fcinfo).and_then(|trigger| collect(trigger)) })
    }
}

pg_function! {
    /// `tailstream.store_log_events()`: AFTER INSERT … FOR EACH STATEMENT; `pending` also calls it directly
    fn store_log_events_wrapper(_fcinfo) -> Datum {
        report(pending::take_all(store));
        pg_sys::Datum::null()
    }
}

unsafe fn trigger<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Result<&'a pg_sys::TriggerData> {
    // SAFETY: PostgreSQL passes a trigger's data as the context of the call.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || !pgrx::is_a(context, pg_sys::NodeTag::T_TriggerData) {
            return Err(Error::Internal("a trigger function that was called as none"));
        }
        Ok(&*context.cast::<pg_sys::TriggerData>())
    }
}

/// Collects one row. Returns it as it will be stored, or NULL if it is older than the retention of its org.
///
/// # Safety
/// `trigger` must come from PostgreSQL, for the row trigger.
unsafe fn collect(trigger: &pg_sys::TriggerData) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    let (mut row, store) = unsafe { (ViewRow::open(trigger)?, store_function(trigger)?) };
    let event = row.complete(time::now())?;
    let Some(id) = pending::add(row.org()?, event, store)? else { return Ok(pg_sys::Datum::null()) };
    Ok(row.with_id(id))
}

/// The function of the statement trigger on the same view. The owner may have added other triggers.
unsafe fn store_function(trigger: &pg_sys::TriggerData) -> Result<pg_sys::Oid> {
    // SAFETY: the relation is open and has the trigger that runs, so its triggers are described.
    unsafe {
        let all = &*(*trigger.tg_relation).trigdesc;
        let triggers = std::slice::from_raw_parts(all.triggers, all.numtriggers.unsigned_abs() as usize);
        let stores = triggers.iter().find(|trigger| CStr::from_ptr(trigger.tgname) == STORE);
        stores.map(|trigger| trigger.tgfoid).ok_or(Error::Internal("view log_events has lost a trigger"))
    }
}

/// Stores the collected rows of one org.
fn store(org: &str, rows: &pending::Rows) -> Result<()> {
    let began = Instant::now();
    let outcome = batch::store_collected(org, rows)?;
    super::count(&outcome, began.elapsed());
    Ok(())
}
