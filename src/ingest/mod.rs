//! Ingest: stores a batch of JSON events of one org, whole or not at all.

mod batch;
mod ledger;
pub mod view;
mod write_path;

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Result, report};
use crate::event::{Format, OnInvalid};
use crate::locks;
use crate::metrics;
use crate::pg::function::{composite_result, pg_function, text_argument};
use crate::session::org_scope;
use crate::shmem::counter::{Counter, Timer};
use batch::{Outcome, Request};

pg_function! {
    /// `ts_ingest(org text, events json, idempotency_key text, on_invalid text)`
    fn ts_ingest_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments and results.
        unsafe { ingest(fcinfo, Format::Json) }
    }
}

pg_function! {
    /// `ts_ingest_ndjson(org text, events text, idempotency_key text, on_invalid text)`
    fn ts_ingest_ndjson_wrapper(fcinfo) -> Datum {
        // SAFETY: declared with these arguments and results.
        unsafe { ingest(fcinfo, Format::NdJson) }
    }
}

/// # Safety
/// `fcinfo` must come from PostgreSQL, for one of the two functions above.
unsafe fn ingest(fcinfo: pg_sys::FunctionCallInfo, format: Format) -> pg_sys::Datum {
    // SAFETY: the caller's promise.
    let request = report(unsafe { request(fcinfo, format) });
    let began = Instant::now();
    let outcome = report(batch::ingest(&request));
    count(&outcome, began.elapsed());
    let mut columns = outcome_columns(&outcome);
    // SAFETY: both functions return these five columns.
    unsafe { composite_result(fcinfo, &mut columns) }
}

unsafe fn request<'a>(fcinfo: pg_sys::FunctionCallInfo, format: Format) -> Result<Request<'a>> {
    // SAFETY: all four arguments are text or json.
    let (org, events, key, on_invalid) = unsafe {
        (
            text_argument(fcinfo, 0),
            text_argument(fcinfo, 1),
            text_argument(fcinfo, 2),
            text_argument(fcinfo, 3),
        )
    };
    Ok(Request {
        org: org_scope::valid_org(org)?,
        events: events.ok_or(Error::NullArgument("events"))?,
        format,
        idempotency_key: key,
        on_invalid: match on_invalid {
            Some("error") => OnInvalid::Error,
            Some("quarantine") => OnInvalid::Quarantine,
            other => return Err(Error::BadOnInvalid(other.unwrap_or("NULL").chars().take(80).collect())),
        },
    })
}

fn count(outcome: &Outcome, took: Duration) {
    metrics::observe(Timer::Ingest, took);
    if outcome.duplicate {
        metrics::count_at_commit(Counter::IngestDuplicates, 1);
        return;
    }
    metrics::count_at_commit(Counter::IngestBatches, 1);
    metrics::count_at_commit(Counter::IngestEvents, outcome.accepted.unsigned_abs().into());
    metrics::count_at_commit(Counter::IngestRejected, outcome.rejected.unsigned_abs().into());
    metrics::count_at_commit(Counter::IngestExpired, outcome.expired.unsigned_abs().into());
}

fn outcome_columns(outcome: &Outcome) -> [pg_sys::Datum; 5] {
    [
        pg_sys::Datum::from(outcome.batch_id),
        pg_sys::Datum::from(outcome.accepted),
        pg_sys::Datum::from(outcome.rejected),
        pg_sys::Datum::from(outcome.expired),
        pg_sys::Datum::from(outcome.duplicate),
    ]
}

/// `tailstream.lock_org_for_erasure(org text)`
#[pg_extern(sql = false)]
fn lock_org_for_erasure(org: &str) {
    report(org_scope::valid_org(Some(org)).and_then(locks::erasing_org));
}

/// `tailstream.lock_org_for_ingest(org text)`
#[pg_extern(sql = false)]
fn lock_org_for_ingest(org: &str) {
    report(org_scope::valid_org(Some(org)).and_then(locks::ingesting_org));
}

/// `tailstream.try_lock_purge() → boolean`
#[pg_extern(sql = false)]
fn try_lock_purge() -> bool {
    report(locks::purging())
}

/// `tailstream.lock_purge()`
#[pg_extern(sql = false)]
fn lock_purge() {
    report(locks::keeping_purge_away());
}
