//! The mirror's tables: the epoch, the numbers of resyncs, the position up to which events were skipped, and the
//! requests for resyncs.

use std::collections::{HashMap, HashSet};
use std::thread::LocalKey;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::BuiltinOid::{INT4OID, INT8ARRAYOID, INT8OID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID};
use pgrx::prelude::*;
use pgrx::{PgBuiltInOids, pg_sys};

use super::checkpoint::Checkpoint;
use super::position::EventPosition;
use crate::batch_reader::order;
use crate::error::{Error, Result, spi};
use crate::pg::snapshot;
use crate::pg::statement::{Statement, arg};
use crate::pg::streaming::{PlanCache, PlanCacheMode, StreamingPlan, Visibility};

/// The number of positions before the checkpoint that are checked for their last entries.
const TAIL: i64 = 1_099;
const TAIL_TYPES: [PgBuiltInOids; 4] = [INT8OID, INT8OID, INT4OID, TIMESTAMPTZOID];
const TAIL_SQL: &str = "SELECT p.org_id, p.xid::text::bigint, (extract(epoch FROM p.placed_at) * 1000)::bigint,
            p.stream_seq + CASE WHEN p.seq = $2 THEN $3 ELSE p.event_count END - 1
     FROM tailstream.positions p
     WHERE p.seq >= $1 AND (p.seq < $2 OR p.seq = $2 AND $3 > 0) AND p.event_count > 0 AND p.placed_at >= $4 ORDER BY p.seq";

thread_local! {
    static OLDEST: Statement = const { Statement::new(
        "reading how old entries may be",
        "SELECT (extract(epoch FROM clock_timestamp() - max(t.stream_age) - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint
         FROM tailstream.tiers t", &[]) };
    static TAIL_PLAN: PlanCache<String> = PlanCache::default();
    static LOAD: Statement = const { Statement::new(
        "reading the mirror's state",
        "SELECT (SELECT m.epoch FROM tailstream.mirror m), coalesce((SELECT m.stream_key FROM tailstream.mirror m), ''),
                coalesce((SELECT m.after_seq FROM tailstream.mirror m), 0),
                coalesce((SELECT m.resyncs_done FROM tailstream.mirror m), 0),
                coalesce((SELECT m.resyncs_reserved FROM tailstream.mirror m), 0)",
        &[]) };
    static PAUSE: Statement = const { Statement::new(
        "switching the mirror off",
        "INSERT INTO tailstream.mirror AS m (epoch, stream_key, paused) VALUES ('', '', true)
         ON CONFLICT (only_row) DO UPDATE SET paused = true WHERE NOT m.paused", &[]) };
    static RESUME: Statement = const { Statement::new(
        "switching the mirror on",
        "UPDATE tailstream.mirror SET paused = false, after_seq = $1 WHERE paused", &[INT8OID]) };
    /// Deletes the backfill times of all orgs. From now on, `mirror_from` is set only for backfills that were requested
    /// later.
    static FORGET_BACKFILLS: Statement = const { Statement::new(
        "switching the mirror on",
        "UPDATE tailstream.orgs SET mirror_from = NULL
         WHERE mirror_from IS NOT NULL AND (SELECT m.paused FROM tailstream.mirror m)", &[]) };
    static ADOPT: Statement = const { Statement::new(
        "beginning a new epoch",
        "INSERT INTO tailstream.mirror (epoch, stream_key) VALUES (gen_random_uuid()::text, $1)
         ON CONFLICT (only_row) DO UPDATE SET epoch = excluded.epoch, stream_key = excluded.stream_key", &[TEXTOID]) };
    static RESYNC_REQUESTS: Statement = const { Statement::new(
        "reading the requests for resyncs",
        "SELECT r.org_id, array_agg(r.request ORDER BY r.request),
                CASE WHEN bool_or(r.reason = 'erased') THEN 'erased' ELSE (array_agg(r.reason ORDER BY r.request DESC))[1] END
         FROM tailstream.mirror_rebuilds r GROUP BY r.org_id", &[]) };
    static REQUEST_RESYNC: Statement = const { Statement::new(
        "requesting a resync", "SELECT tailstream.request_rebuild($1, $2)", &[TEXTOID, TEXTOID]) };
    static DELETE_REQUESTS: Statement = const { Statement::new(
        "recording a finished resync",
        // A request that another transaction has locked and not committed must not block the mirror for all orgs.
        "DELETE FROM tailstream.mirror_rebuilds r
         USING (SELECT l.request FROM tailstream.mirror_rebuilds l WHERE l.org_id = $1 AND l.request = ANY ($2) FOR UPDATE SKIP LOCKED) l
         WHERE r.org_id = $1 AND r.request = l.request RETURNING r.request", &[TEXTOID, INT8ARRAYOID]) };
    static RESYNCS_DONE: Statement = const { Statement::new(
        "recording a finished resync",
        "UPDATE tailstream.mirror SET resyncs_done = greatest(resyncs_done, $1)", &[INT8OID]) };
    static RESERVE_NUMBERS: Statement = const { Statement::new(
        "reserving numbers of resyncs",
        "UPDATE tailstream.mirror SET resyncs_reserved = resyncs_reserved + $1 RETURNING resyncs_reserved", &[INT8OID]) };
    /// If the server crashes and loses such a commit, the only consequence is that a resync is repeated.
    static ASYNCHRONOUS_COMMIT: Statement = const { Statement::new(
        "setting a transaction up", "SELECT set_config('synchronous_commit', 'off', true)", &[]) };
    static OWN_KEYS: Statement = const { Statement::new(
        "recording the mirror's own keys",
        "UPDATE tailstream.mirror SET checkpoint_key = $1,
                former_checkpoint_keys = CASE WHEN checkpoint_key = '' THEN former_checkpoint_keys ELSE array_append(former_checkpoint_keys, checkpoint_key) END
         WHERE checkpoint_key <> $1", &[TEXTOID]) };
    static FORMER_KEYS: Statement = const { Statement::new(
        "reading the mirror's former keys", "SELECT unnest(former_checkpoint_keys) FROM tailstream.mirror", &[]) };
    static KNOWN: Statement = const { Statement::new(
        "looking for orgs", "SELECT o.org_id FROM tailstream.orgs o WHERE o.org_id = ANY ($1)", &[TEXTARRAYOID]) };
    static ORGS_WITHOUT_RESYNC: Statement = const { Statement::new(
        "listing orgs",
        "SELECT o.org_id FROM tailstream.orgs o
         WHERE o.mirrored AND o.org_id > $1
           AND NOT EXISTS (SELECT FROM tailstream.mirror_rebuilds r WHERE r.org_id = o.org_id)
         ORDER BY o.org_id LIMIT 500", &[TEXTOID]) };
    static STREAM_LIMITS: Statement = const { Statement::new(
        "listing streams to trim",
        "SELECT o.org_id, t.stream_entries, (extract(epoch FROM clock_timestamp() - t.stream_age) * 1000)::bigint
         FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier
         WHERE o.org_id > $1 ORDER BY o.org_id LIMIT 500", &[TEXTOID]) };
}

/// The row of `tailstream.mirror`, and the last position.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// `None` before the first connection to Redis.
    pub epoch: Option<String>,
    pub stream_key: String,
    pub after_seq: i64,
    pub last_seq: i64,
    /// Redis has all resyncs up to this number.
    pub resyncs_done: i64,
    /// Redis was never given a larger number.
    pub resyncs_reserved: i64,
}

/// The open requests to resync one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResyncRequest {
    pub org: String,
    pub numbers: Vec<i64>,
    /// The reason of the last request; `erased` has precedence.
    pub reason: String,
}

/// The entry that an org's stream should end with.
#[derive(Debug, Clone)]
pub struct LastEntry {
    pub org: String,
    pub xid: u64,
    pub ms: i64,
    pub seq: i64,
}

/// A stream, and the limits of its tier.
pub struct Limits {
    pub org: String,
    pub entries: i64,
    /// Entries with smaller ids are removed. In milliseconds since the Unix epoch.
    pub oldest_ms: i64,
}

pub fn load() -> Result<Durable> {
    let reading = || spi("reading the mirror's state");
    Spi::connect_mut(|client| {
        let row = LOAD.with(|load| load.run(client, &[]))?.first();
        Ok(Durable {
            epoch: row.get::<String>(1).map_err(reading())?.filter(|epoch| !epoch.is_empty()),
            stream_key: row.get(2).map_err(reading())?.unwrap_or_default(),
            after_seq: row.get(3).map_err(reading())?.unwrap_or_default(),
            last_seq: last_seq()?,
            resyncs_done: row.get(4).map_err(reading())?.unwrap_or_default(),
            resyncs_reserved: row.get(5).map_err(reading())?.unwrap_or_default(),
        })
    })
}

/// The sequence number of the last position; 0 if there is none.
fn last_seq() -> Result<i64> {
    Ok(snapshot::current(order::head)?.map_or(0, |head| head.seq))
}

/// Records that the mirror is switched off for all orgs.
pub fn pause() -> Result<()> {
    Spi::connect_mut(|client| PAUSE.with(|pause| pause.run(client, &[]).map(drop)))
}

/// Records that the mirror is switched on. It continues after the present last position.
pub fn resume() -> Result<()> {
    Spi::connect_mut(|client| {
        FORGET_BACKFILLS.with(|forget| forget.run(client, &[]).map(drop))?;
        RESUME.with(|resume| resume.run(client, &[arg(last_seq()?)]).map(drop))
    })
}

/// Begins a new epoch: requests a resync of every stream that should contain anything. Returns the new checkpoint.
pub fn begin_epoch(stream_key: &str, checkpoint_key: &str) -> Result<Checkpoint> {
    // This is read first. Later positions are sent with the backlog, whether their org is listed for a resync or not.
    let last_seq = load()?.last_seq;
    Spi::connect_mut(|client| {
        ADOPT.with(|adopt| adopt.run(client, &[arg(stream_key.to_owned())]).map(drop))?;
        OWN_KEYS.with(|own_keys| own_keys.run(client, &[arg(checkpoint_key.to_owned())]).map(drop))
    })?;
    list_lost()?;
    let durable = load()?;
    let epoch = durable.epoch.ok_or(Error::Internal("an epoch that was just begun is not there"))?;
    let (timeline, resync_number) = (timeline(), durable.resyncs_done);
    Ok(Checkpoint { epoch, timeline, resync_number, position: EventPosition::before(last_seq + 1) })
}

/// Reserves `count` numbers of resyncs and returns the last one.
pub fn reserve_resyncs(count: i64) -> Result<i64> {
    Spi::connect_mut(|client| {
        let row = RESERVE_NUMBERS.with(|reserve| reserve.run(client, &[arg(count)]))?.first();
        let last = row.get::<i64>(1).map_err(spi("reserving numbers of resyncs"))?;
        last.ok_or(Error::Internal("no row in tailstream.mirror"))
    })
}

/// The keys of checkpoints that this database's mirror used on other servers, or before the database was restored.
pub fn former_checkpoint_keys() -> Result<Vec<String>> {
    texts(&FORMER_KEYS, &[])
}

/// Returns those of these orgs that are registered.
pub fn known_orgs(orgs: Vec<String>) -> Result<HashSet<String>> {
    texts(&KNOWN, &[arg(orgs)]).map(|found| found.into_iter().collect())
}

fn texts(statement: &'static LocalKey<Statement>, arguments: &[DatumWithOid<'_>]) -> Result<Vec<String>> {
    Spi::connect_mut(|client| {
        let rows = statement.with(|statement| statement.run(client, arguments))?;
        rows.map(|row| Ok(row.get(1).map_err(spi("reading texts"))?.unwrap_or_default())).collect()
    })
}

/// Requests a resync of every stream that should contain anything. The query contains the times as constants, so that
/// the planner excludes other chunks.
fn list_lost() -> Result<()> {
    let listing = || spi("listing streams to resync");
    let oldest = Spi::get_one::<String>(
        "SELECT to_char((clock_timestamp() - (SELECT max(stream_age) FROM tailstream.tiers)) AT TIME ZONE 'UTC',
                        'YYYY-MM-DD HH24:MI:SS BC') || ' UTC'",
    );
    let Some(oldest) = oldest.map_err(listing())? else { return Ok(()) };
    let sql = format!(
        "INSERT INTO tailstream.mirror_rebuilds (org_id, reason)
         SELECT DISTINCT p.org_id, 'lost'
         FROM tailstream.positions p
         JOIN tailstream.orgs o ON o.org_id = p.org_id AND o.mirrored
         JOIN tailstream.tiers t ON t.id = o.tier
         WHERE p.placed_at > clock_timestamp() - t.stream_age AND p.event_count > 0 AND p.placed_at >= '{oldest}'
           AND (o.mirror_from IS NOT NULL OR p.seq > (SELECT m.after_seq FROM tailstream.mirror m))
           AND NOT EXISTS (SELECT FROM tailstream.mirror_rebuilds r WHERE r.org_id = p.org_id)"
    );
    Spi::run(&sql).map_err(listing())
}

/// The server's timeline.
pub fn timeline() -> u32 {
    // SAFETY: reads shared memory. The server is no standby, because workers do not run there.
    unsafe { pg_sys::GetWALInsertionTimeLine() }
}

pub fn resync_requests() -> Result<Vec<ResyncRequest>> {
    let reading = || spi("reading the requests for resyncs");
    Spi::connect_mut(|client| {
        let rows = RESYNC_REQUESTS.with(|statement| statement.run(client, &[]))?;
        rows.map(|row| {
            Ok(ResyncRequest {
                org: row.get(1).map_err(reading())?.unwrap_or_default(),
                numbers: row.get(2).map_err(reading())?.unwrap_or_default(),
                reason: row.get(3).map_err(reading())?.unwrap_or_default(),
            })
        })
        .collect()
    })
}

pub fn request_resync(org: &str, reason: &str) -> Result<()> {
    let arguments = [arg(org.to_owned()), arg(reason.to_owned())];
    Spi::connect_mut(|client| REQUEST_RESYNC.with(|request| request.run(client, &arguments).map(drop)))
}

/// Records that Redis has the resync, with this number, and deletes its requests. Returns false if another transaction
/// has locked some of them, or has replaced them.
pub fn finish_resync(request: &ResyncRequest, resync_number: i64) -> Result<bool> {
    let arguments = [arg(request.org.clone()), arg(request.numbers.clone())];
    Spi::connect_mut(|client| {
        ASYNCHRONOUS_COMMIT.with(|statement| statement.run(client, &[]).map(drop))?;
        let deleted =
            DELETE_REQUESTS.with(|delete| delete.run(client, &arguments)).map(|deleted| deleted.len())?;
        let all = deleted == request.numbers.len();
        if all {
            RESYNCS_DONE.with(|done| done.run(client, &[arg(resync_number)]).map(drop))?;
        }
        Ok(all)
    })
}

/// The last entries, before `end`, of the orgs whose events were sent last.
pub fn tail(end: EventPosition) -> Result<Vec<LastEntry>> {
    let first = end.seq.saturating_sub(TAIL);
    let mut found: HashMap<String, LastEntry> = HashMap::new();
    let mut failed = false;
    // Older entries are in no stream.
    let oldest = OLDEST.with(|oldest| oldest.first_numbers::<1>(&[]))?.map_or(i64::MIN, |[oldest]| oldest);
    snapshot::current(|| {
        let since = order::since_or(first, oldest)?;
        let values = [first, end.seq, i64::from(end.offset), since].map(|value| Some(value.into()));
        Spi::connect_mut(|_| {
            let plan = TAIL_PLAN.with(|plans| {
                plans.get(TAIL_SQL, |sql| StreamingPlan::new(sql, &TAIL_TYPES, PlanCacheMode::Custom))
            })?;
            plan.each(values, Visibility::ActiveSnapshot, |row| {
                let numbers = (row.int8(1), row.int8(2), row.int8(3));
                let (Some(org), (Some(xid), Some(ms), Some(seq))) = (row.text(0), numbers) else {
                    failed = true;
                    return false;
                };
                let last = LastEntry { org: org.to_owned(), xid: xid as u64, ms, seq };
                found.insert(last.org.clone(), last);
                true
            })
        })
    })?;
    if failed { Err(Error::Internal("a NULL in a position")) } else { Ok(found.into_values().collect()) }
}

/// The next mirrored orgs after this one, in the order of their ids, for whose streams no resync is requested.
pub fn orgs_without_resync(after: &str) -> Result<Vec<String>> {
    texts(&ORGS_WITHOUT_RESYNC, &[arg(after.to_owned())])
}

/// How long an org's stream keeps entries, in milliseconds; 0 if the org is not registered.
pub fn stream_age(org: &str) -> Result<i64> {
    let age = Spi::get_one_with_args::<i64>(
        "SELECT (SELECT (extract(epoch FROM t.stream_age) * 1000)::bigint
                 FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier WHERE o.org_id = $1)",
        &[arg(org.to_owned())],
    );
    age.map_err(spi("reading an org's tier")).map(Option::unwrap_or_default)
}

/// The org of the batch with this sequence number.
pub fn org_at(seq: i64) -> Result<Option<String>> {
    let found = snapshot::current(|| order::last_before(seq.saturating_add(1)))?;
    Ok(found.filter(|found| found.seq == seq).map(|found| found.org))
}

/// The limits of the streams of the next orgs after this one, in the order of their ids.
pub fn limits(after: &str) -> Result<Vec<Limits>> {
    let reading = || spi("listing streams to trim");
    Spi::connect_mut(|client| {
        let rows = STREAM_LIMITS.with(|statement| statement.run(client, &[arg(after.to_owned())]))?;
        rows.map(|row| {
            Ok(Limits {
                org: row.get(1).map_err(reading())?.unwrap_or_default(),
                entries: row.get(2).map_err(reading())?.unwrap_or_default(),
                oldest_ms: row.get(3).map_err(reading())?.unwrap_or_default(),
            })
        })
        .collect()
    })
}
