//! One call of `ts_ingest`, step by step.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::lane::{self, Stored};
use super::ledger::{self, Key};
use super::view::pending::Rows;
use crate::error::{Error, Result};
use crate::event::{Clock, Event, EventError, Format, OnInvalid, decode};
use crate::locks;
use crate::metrics::shared;
use crate::pg::{catalog, time};
use crate::session::org_scope;
use crate::settings;
use crate::tier::cache;
use crate::tier::lookup::Tier;
use crate::worker::commit;

/// Bits of an event's id that count events within a batch.
pub const OFFSET_BITS: u32 = 16;
const MAX_KEY_CHARS: usize = 255;

unsafe extern "C-unwind" {
    /// PostgreSQL's own `nextval`, which can leave out the check of the caller's rights.
    fn nextval_internal(sequence: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// What the caller asks for.
pub struct Request<'a> {
    pub org: &'a str,
    pub events: &'a str,
    pub format: Format,
    pub idempotency_key: Option<&'a str>,
    pub on_invalid: OnInvalid,
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Of several batch ids the first.
    pub batch_id: i64,
    pub accepted: i32,
    pub rejected: i32,
    pub expired: i32,
    pub duplicate: bool,
}

/// Stores the batch, or returns what became of it the first time.
pub fn ingest(request: &Request) -> Result<Outcome> {
    let org = request.org;
    org_scope::require_org(org)?;
    let key = request.idempotency_key.map(valid_key).transpose()?;
    let key = key.map(|text| Key::new(text, request.events));
    locks::ingesting_org(org)?;
    if let Some(key) = &key {
        locks::idempotency_key(org, key.text)?;
        if let Some(first) = ledger::find(org, key)? {
            return Ok(first);
        }
    }
    let tier = tier_for(org)?;
    let (now, received_at) = times();
    let clock = Clock { now, max_future: now + settings::max_future_skew() };
    let mut decoded = decode(request.format, request.events, &clock, request.on_invalid).map_err(invalid)?;

    let decoded_count = decoded.events.len();
    let floor = floor(&tier);
    decoded.events.retain(|event| event.created_at >= floor);

    let outcome = Outcome {
        batch_id: next_batch_id()?,
        accepted: count(decoded.events.len())?,
        rejected: count(decoded.rejected.len())?,
        expired: count(decoded_count - decoded.events.len())?,
        duplicate: false,
    };
    let stored = Stored { org, tier: tier.id };
    store(&stored, &decoded.events, &outcome, received_at, key)?;
    ledger::quarantine(org, &outcome, received_at, &decoded.rejected)?;
    commit::wake_sequencer();
    Ok(outcome)
}

/// Stores rows that were collected one by one; those that are expired are only counted.
pub fn store_collected(org: &str, rows: &Rows) -> Result<Outcome> {
    let tier = tier_for(org)?;
    let (_, received_at) = times();
    let outcome = Outcome {
        batch_id: rows.batch_id,
        accepted: count(rows.events.len())?,
        rejected: 0,
        expired: count(rows.expired)?,
        duplicate: false,
    };
    store(&Stored { org, tier: tier.id }, &rows.events, &outcome, received_at, None)?;
    commit::wake_sequencer();
    Ok(outcome)
}

/// Events of the org that are older are expired: microseconds since the Unix epoch.
pub fn floor_of(org: &str) -> Result<i64> {
    let tier = match cache::tier_of(org)? {
        Some(tier) => tier,
        None if settings::auto_register_orgs() => cache::default_tier()?,
        None => return Err(Error::UnknownOrg(org.to_owned())),
    };
    Ok(floor(&tier))
}

fn floor(tier: &Tier) -> i64 {
    time::to_unix_time(time::statement_start()) - tier.retention
}

/// Writes rows and ledger, one batch id for every 65,536 events.
fn store(
    stored: &Stored,
    events: &[Event],
    outcome: &Outcome,
    received_at: i64,
    key: Option<Key<'_>>,
) -> Result<()> {
    let mut batch_id = outcome.batch_id;
    let mut call = Some((outcome, key));
    let mut parts = events.chunks(1 << OFFSET_BITS);
    let mut part = parts.next().unwrap_or_default();
    loop {
        let spot = lane::write(stored, batch_id << OFFSET_BITS, part)?;
        ledger::record(stored, batch_id, received_at, part, spot, call.take())?;
        part = match parts.next() {
            Some(next) => next,
            None => return Ok(()),
        };
        batch_id = next_batch_id()?;
    }
}

fn valid_key(key: &str) -> Result<&str> {
    match key.chars().count() {
        1..=MAX_KEY_CHARS => Ok(key),
        length => Err(Error::BadKeyLength(length)),
    }
}

/// The org's tier; registers the org if it is new.
fn tier_for(org: &str) -> Result<Tier> {
    if let Some(tier) = cache::tier_of(org)? {
        return Ok(tier);
    }
    if !settings::auto_register_orgs() {
        return Err(Error::UnknownOrg(org.to_owned()));
    }
    ledger::register_org(org, cache::default_tier()?.id)?;
    // If the registration is rolled back, nobody may go on believing in it.
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Abort, cache::forget);
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Prepare, cache::forget);
    pgrx::register_subxact_callback(pgrx::PgSubXactCallbackEvent::AbortSub, |_, _| cache::forget());
    cache::tier_of(org)?.ok_or(Error::RowNotStored("orgs"))
}

/// A new batch id, whatever rights the caller has.
pub fn next_batch_id() -> Result<i64> {
    let sequence = catalog::relation(catalog::schema()?, c"batch_id_seq")?;
    // SAFETY: a sequence; what it raises passes the guard.
    Ok(unsafe { pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) })
}

/// The time, and when the batch counts as received: after the transaction got its id, and not before any look of the
/// sequencer that came before that, whatever the clock says. So the sequencer knows how far back it has to look.
fn times() -> (i64, i64) {
    // SAFETY: reads two variables; the id is assigned inside a transaction that may write.
    unsafe {
        if !pg_sys::XactReadOnly && !pg_sys::RecoveryInProgress() {
            pg_sys::GetTopTransactionId();
        }
    }
    let now = time::now();
    // SAFETY: reads one variable.
    let slot = shared::find(unsafe { pg_sys::MyDatabaseId });
    (now, slot.map_or(now, |slot| now.max(slot.progress.looked_at())))
}

fn count(length: usize) -> Result<i32> {
    i32::try_from(length).map_err(|_| Error::Internal("more events than an integer counts"))
}

/// The error of a batch with an invalid event.
pub fn invalid(error: EventError) -> Error {
    Error::Event {
        sqlstate: error.sqlstate(),
        message: error.to_string(),
        detail: error.detail(),
        hint: error.hint(),
    }
}
