//! One call of `ts_ingest`, step by step.

use pgrx::pg_sys;

use super::ledger::{self, Key};
use super::view::pending::Rows;
use super::write_path::{self, Stored};
use crate::error::{Error, Result};
use crate::event::{Clock, Event, EventError, Format, OnInvalid, decode};
use crate::locks;
use crate::metrics::shared;
use crate::pg::time;
use crate::session::org_scope;
use crate::settings;
use crate::storage::id;
use crate::tier::cache;
use crate::tier::lookup::Tier;
use crate::worker::commit;

const MAX_KEY_CHARS: usize = 255;

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
        batch_id: id::next_batch_id()?,
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
