//! Writes the batch ledger, registers orgs, and quarantines invalid events.

use std::ops::Range;

use pgrx::pg_sys::BuiltinOid::{
    INT2OID, INT4ARRAYOID, INT4OID, INT8OID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID,
};
use pgrx::prelude::*;
use pgrx::{IntoDatum, pg_sys};

use super::batch::Outcome;
use super::write_path::Stored;
use crate::error::{Error, Result};
use crate::event::{Event, Rejection};
use crate::pg::statement::{Statement, arg};
use crate::pg::streaming::StreamingStatement;
use crate::pg::time::{self, to_postgres_time};
use crate::settings;
use crate::storage::block_hint::BlockHint;

/// Rejected events per statement. Their text is in memory twice while it runs.
const QUARANTINE_PART: usize = 1_000;

thread_local! {
    static FIND: StreamingStatement = const { StreamingStatement::new(
        "SELECT batch_id, accepted::int8, rejected::int8, expired::int8, payload_hash FROM tailstream.batches
          WHERE org_id = $1 AND idempotency_key = $2 AND received_at > $3
          ORDER BY received_at DESC LIMIT 1",
        &[TEXTOID, TEXTOID, TIMESTAMPTZOID],
    ) };
    static RECORD: Statement = const { Statement::new(
        "recording a batch",
        "INSERT INTO tailstream.batches (batch_id, received_at, xid, org_id, tier, event_count, first_event_at,
             last_event_at, idempotency_key, accepted, rejected, expired, block_hint, payload_hash)
         VALUES ($1, $2, pg_catalog.pg_current_xact_id(), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        &[INT8OID, TIMESTAMPTZOID, TEXTOID, INT2OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID,
          INT4OID, INT4OID, INT4OID, TEXTOID, INT8OID],
    ) };
    static REGISTER: Statement = const { Statement::new(
        "registering an org",
        "INSERT INTO tailstream.orgs (org_id, tier) VALUES ($1, $2) ON CONFLICT (org_id) DO NOTHING",
        &[TEXTOID, INT2OID],
    ) };
    static QUARANTINE: Statement = const { Statement::new(
        "quarantining events",
        "INSERT INTO tailstream.rejected_events (received_at, batch_id, org_id, position, sqlstate, reason, event)
         SELECT $1, $2, $3, u.* FROM unnest($4, $5, $6, $7) u",
        &[TIMESTAMPTZOID, INT8OID, TEXTOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID],
    ) };
}

/// The idempotency key of a call and a hash of its events.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    pub text: &'a str,
    /// Hash of the events' text. Never 0, which stands for a row without hash.
    payload_hash: i64,
}

impl<'a> Key<'a> {
    pub fn new(text: &'a str, events: &str) -> Self {
        let hash = blake3::hash(events.as_bytes());
        let first = i64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]));
        Self { text, payload_hash: if first == 0 { 1 } else { first } }
    }
}

/// The outcome of an earlier call with this key inside the idempotency window. Error if that call had other events.
///
/// Reads everything that is committed now: under REPEATABLE READ, the transaction's own snapshot would not show a batch whose
/// commit the lock on the key has just waited for.
pub fn find(org: &str, key: &Key) -> Result<Option<Outcome>> {
    let since = to_postgres_time(time::now() - settings::idempotency_window());
    let (Some(org), Some(text)) = (org.into_datum(), key.text.into_datum()) else { return Ok(None) };
    let found = FIND.with(|find| find.first_committed([org, text, pg_sys::Datum::from(since)]))?;
    let Some([batch_id, accepted, rejected, expired, payload_hash]) = found else { return Ok(None) };
    // A row without a hash matches any events.
    if payload_hash != 0 && payload_hash != key.payload_hash {
        return Err(Error::KeyReused { key: key.text.to_owned(), batch_id });
    }
    Ok(Some(Outcome {
        batch_id,
        accepted: accepted as i32,
        rejected: rejected as i32,
        expired: expired as i32,
        duplicate: true,
    }))
}

/// Writes the ledger row of one batch. `call` is given for the first batch of a call.
pub fn record(
    stored: &Stored,
    batch_id: i64,
    received_at: i64,
    events: &[Event],
    block_hint: Option<BlockHint>,
    call: Option<(&Outcome, Option<Key<'_>>)>,
) -> Result<()> {
    let span = span(events);
    let (outcome, key) = call.unzip();
    let key = key.flatten();
    let arguments = [
        arg(batch_id),
        timestamp(received_at)?,
        arg(stored.org.to_owned()),
        arg(stored.tier),
        arg(events.len() as i32),
        span.as_ref().map_or_else(null_timestamp, |span| timestamp(span.start))?,
        span.as_ref().map_or_else(null_timestamp, |span| timestamp(span.end))?,
        arg(key.map(|key| key.text.to_owned())),
        arg(outcome.map(|outcome| outcome.accepted)),
        arg(outcome.map(|outcome| outcome.rejected)),
        arg(outcome.map(|outcome| outcome.expired)),
        arg(block_hint.map(|block_hint| block_hint.to_string())),
        arg(key.map(|key| key.payload_hash)),
    ];
    let recorded =
        Spi::connect_mut(|client| RECORD.with(|record| Ok(record.run(client, &arguments)?.len())))?;
    if recorded == 1 { Ok(()) } else { Err(Error::RowNotStored("batches")) }
}

/// The earliest and the latest event time.
fn span(events: &[Event]) -> Option<Range<i64>> {
    let times = || events.iter().map(|event| event.created_at);
    Some(times().min()?..times().max()?)
}

/// Registers an org, unless a concurrent transaction has registered it.
pub fn register_org(org: &str, tier: i16) -> Result<()> {
    let arguments = [arg(org.to_owned()), arg(tier)];
    Spi::connect_mut(|client| REGISTER.with(|register| register.run(client, &arguments)).map(drop))
}

/// Writes invalid events to the quarantine, each with its error.
pub fn quarantine(org: &str, outcome: &Outcome, received_at: i64, rejected: &[Rejection]) -> Result<()> {
    for part in rejected.chunks(QUARANTINE_PART) {
        let texts = |text: fn(&Rejection) -> String| part.iter().map(text).collect::<Vec<_>>();
        let arguments = [
            timestamp(received_at)?,
            arg(outcome.batch_id),
            arg(org.to_owned()),
            arg(part.iter().map(|rejection| rejection.index as i32).collect::<Vec<_>>()),
            arg(texts(|rejection| rejection.error.sqlstate().to_owned())),
            arg(texts(|rejection| rejection.error.to_string())),
            arg(texts(|rejection| rejection.raw.to_owned())),
        ];
        let stored = Spi::connect_mut(|client| {
            QUARANTINE.with(|statement| Ok(statement.run(client, &arguments)?.len()))
        })?;
        if stored != part.len() {
            return Err(Error::RowNotStored("rejected_events"));
        }
    }
    Ok(())
}

fn timestamp(unix: i64) -> Result<pgrx::datum::DatumWithOid<'static>> {
    TimestampWithTimeZone::try_from(to_postgres_time(unix))
        .map(arg)
        .map_err(|_| Error::Internal("a time out of range"))
}

fn null_timestamp() -> Result<pgrx::datum::DatumWithOid<'static>> {
    Ok(arg(None::<TimestampWithTimeZone>))
}
