//! The steps of one ingest call.

use pgrx::pg_sys;

use super::ledger::{self, Key};
use super::view::pending::Rows;
use super::write_path::{self, Stored};
use crate::error::{Error, Result};
use crate::event::{Clock, Event, EventError, Format, OnInvalid, decode};
use crate::locks;
use crate::pg::time;
use crate::session::org_scope;
use crate::settings;
use crate::shmem;
use crate::storage::id;
use crate::tier::cache;
use crate::tier::lookup::Tier;
use crate::worker::transaction_callbacks;

const MAX_KEY_CHARS: usize = 255;

/// The arguments of an ingest call.
pub struct Request<'a> {
    pub org: &'a str,
    pub events: &'a str,
    pub format: Format,
    pub idempotency_key: Option<&'a str>,
    pub on_invalid: OnInvalid,
}

/// The result of an ingest call.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The first one, if the call stored several batches.
    pub batch_id: i64,
    pub accepted: i32,
    pub rejected: i32,
    pub expired: i32,
    pub duplicate: bool,
}

/// Stores the batch. Returns the first outcome if the idempotency key is known.
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
    let cutoff = retention_cutoff(&tier);
    decoded.events.retain(|event| event.created_at >= cutoff);

    let outcome = Outcome {
        batch_id: id::next_batch_id()?,
        accepted: count(decoded.events.len())?,
        rejected: count(decoded.rejected.len())?,
        expired: count(decoded_count - decoded.events.len())?,
        duplicate: false,
    };
    let stored = Stored { org, tier: tier.id };
    store(&stored, &decoded.events, &outcome, received_at, key)?;
    ledger::quarantine(org, &outcome, received_at, &decoded.rejected)?;
    transaction_callbacks::wake_sequencer();
    Ok(outcome)
}

/// Stores rows that were inserted into the view. Expired rows are only counted.
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
    transaction_callbacks::wake_sequencer();
    Ok(outcome)
}

/// The org's retention cutoff in microseconds since the Unix epoch: older events are expired.
pub fn retention_cutoff_of(org: &str) -> Result<i64> {
    let tier = match cache::tier_of(org)? {
        Some(tier) => tier,
        None if settings::auto_register_orgs() => cache::default_tier()?,
        None => return Err(Error::UnknownOrg(org.to_owned())),
    };
    Ok(retention_cutoff(&tier))
}

fn retention_cutoff(tier: &Tier) -> i64 {
    time::to_unix_time(time::statement_start()) - tier.retention
}

/// Writes the rows and the ledger. Every 65,536 events are a batch of their own.
fn store(
    stored: &Stored,
    events: &[Event],
    outcome: &Outcome,
    received_at: i64,
    key: Option<Key<'_>>,
) -> Result<()> {
    let mut batch_id = outcome.batch_id;
    let mut call = Some((outcome, key));
    let mut parts = events.chunks(id::MAX_EVENTS);
    let mut part = parts.next().unwrap_or_default();
    loop {
        let block_hint = write_path::write(stored, batch_id, part)?;
        ledger::record(stored, batch_id, received_at, part, block_hint, call.take())?;
        part = match parts.next() {
            Some(next) => next,
            None => return Ok(()),
        };
        batch_id = id::next_batch_id()?;
    }
}

fn valid_key(key: &str) -> Result<&str> {
    match key.chars().count() {
        1..=MAX_KEY_CHARS => Ok(key),
        length => Err(Error::BadKeyLength(length)),
    }
}

/// The org's tier. Registers the org if it is new.
fn tier_for(org: &str) -> Result<Tier> {
    if let Some(tier) = cache::tier_of(org)? {
        return Ok(tier);
    }
    if !settings::auto_register_orgs() {
        return Err(Error::UnknownOrg(org.to_owned()));
    }
    ledger::register_org(org, cache::default_tier()?.id)?;
    // If the registration is rolled back, the session must not keep it in its cache.
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Abort, cache::forget);
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Prepare, cache::forget);
    pgrx::register_subxact_callback(pgrx::PgSubXactCallbackEvent::AbortSub, |_, _| cache::forget());
    cache::tier_of(org)?.ok_or(Error::RowNotStored("orgs"))
}

/// The present, and the time at which the batch counts as received, both in microseconds since the Unix epoch.
///
/// The second is read after the transaction got its id, and is never earlier than the start of a sequencer poll before that,
/// even if the clock was set back. The sequencer derives from it how far back it must read the ledger.
fn times() -> (i64, i64) {
    // SAFETY: reads two variables; the id is assigned inside a transaction that may write.
    unsafe {
        if !pg_sys::XactReadOnly && !pg_sys::RecoveryInProgress() {
            pg_sys::GetTopTransactionId();
        }
    }
    let now = time::now();
    // SAFETY: reads one variable.
    let shared = shmem::find(unsafe { pg_sys::MyDatabaseId });
    (now, shared.map_or(now, |shared| now.max(shared.progress.last_poll_at())))
}

fn count(length: usize) -> Result<i32> {
    i32::try_from(length).map_err(|_| Error::Internal("more events than an integer counts"))
}

/// The error of a call with an invalid event.
pub fn invalid(error: EventError) -> Error {
    Error::Event {
        sqlstate: error.sqlstate(),
        message: error.to_string(),
        detail: error.detail(),
        hint: error.hint(),
    }
}
