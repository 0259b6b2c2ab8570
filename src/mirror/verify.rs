//! `ts_mirror_verify()`: compares a stream with the table, event by event.
//!
//! The stream should contain the org's newest events in commit order, up to the mirror's position, as many as the
//! limits of its tier permit. It may still contain older entries, because Redis trims lazily. Those are not checked.

use std::collections::BTreeMap;

use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use redis::Value;

use super::commands::Commands;
use super::connection::{Connection, Target};
use super::entry::Entry;
use super::position::EventPosition;
use super::reader;
use super::replies::{self, text};
use super::server::{self, Limits};
use super::{state, status, stream_contents};
use crate::error::{Error, Result, report};
use crate::pg::time;
use crate::session::org_scope;
use crate::shmem;
use crate::worker::process;

/// The number of entries that are requested at a time.
const PAGE: usize = 1_000;

/// Stream ids whose times differ by less than this, in milliseconds, are looked up together.
const NEAR: i64 = 60_000;

type Id = (i64, i64);

/// For each kind of finding: the number of entries, and the first and the last stream id.
#[derive(Default)]
struct Findings {
    by_kind: BTreeMap<&'static str, (i64, Id, Id)>,
    /// Entries that are not in the stream. They may have been trimmed.
    missing: Vec<Id>,
}

impl Findings {
    fn add(&mut self, kind: &'static str, id: Id) {
        let (count, first, last) = self.by_kind.entry(kind).or_insert((0, id, id));
        (*count, *first, *last) = (*count + 1, id.min(*first), id.max(*last));
    }
}

fn explain(kind: &str) -> &'static str {
    match kind {
        "matching" => "the same in the stream and in the table",
        "missing" => "in the table, but not in the stream",
        "extra" => "in the stream, but never in the table",
        "different" => "different contents in the stream and in the table",
        "expired" => "in the stream, but purged or erased from the table since",
        "pending" => "in the table, but not sent yet",
        _ => "the stream is being written again",
    }
}

/// `ts_mirror_verify(org text)`
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn ts_mirror_verify(
    org: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(finding, &'static str),
        name!(entries, i64),
        name!(first_stream_id, Option<String>),
        name!(last_stream_id, Option<String>),
        name!(detail, &'static str),
    ),
> {
    let mut findings = report(verify(org)).by_kind;
    let matching = findings.remove("matching");
    let row = |(kind, (entries, first, last)): (&'static str, (i64, Id, Id))| {
        let id = |(ms, seq): Id| (entries > 0 && ms > 0).then(|| format!("{ms}-{seq}"));
        (kind, entries, id(first), id(last), explain(kind))
    };
    let all = [("matching", matching.unwrap_or_default())].into_iter().chain(findings);
    TableIterator::new(all.map(row).collect::<Vec<_>>())
}

fn verify(org: Option<&str>) -> Result<Findings> {
    let org = org_scope::valid_org(org)?;
    org_scope::require_org(org)?;
    crate::metrics::workers_here()?;
    let shared = shmem::own().ok_or(Error::NotPreloaded)?;
    let target = Target::from_settings().ok_or(Error::NoRedis)?;
    let key = status::template()?.key(org);
    let mut redis = Client::begin(target)?;
    let limits = redis.limits()?;
    let mut findings = Findings::default();
    let (seq, offset) = shared.progress.next_position();
    let sent = EventPosition { seq, offset };
    if state::resync_requests()?.iter().any(|request| request.org == org) {
        findings.by_kind.insert("rebuilding", (1, (0, 0), (0, 0)));
    }
    // Of a batch that is being sent, the events before `offset` are expected in the stream.
    let before = if offset > 0 { seq + 1 } else { seq };
    let (mut last, mut hole) = (None, Id::default());
    if let Some(mut next) = stream_contents::start(org, before)? {
        loop {
            pgrx::check_for_interrupts!();
            let expected = reader::expected_entries(org, &mut next, before, sent, (&mut hole, &limits))?;
            let Some(until) = expected.last().map(id_of) else { break };
            let from = last.or_else(|| expected.first().map(|entry| before_id(id_of(entry))));
            let found = stream(&mut redis, &key, from.unwrap_or_default(), until)?;
            compare(org, expected, found, &mut findings)?;
            last = Some(until);
        }
    }
    // After these entries come those that were sent in the meantime, and those of other writers.
    let oldest = (time::now() / 1_000 - state::stream_age(org)?, 0);
    let behind = stream(&mut redis, &key, last.unwrap_or(oldest), (i64::MAX, i64::MAX))?;
    for (id, known) in were_placed(org, behind.iter().map(|entry| entry.id).collect())? {
        if !known {
            findings.add("extra", id);
        }
    }
    discard_trimmed(org, &mut redis, &key, hole, &mut findings)?;
    let pending = stream_contents::count(org, sent)?;
    if pending > 0 {
        findings.by_kind.insert("pending", (pending, (0, 0), (0, 0)));
    }
    Ok(findings)
}

fn id_of(entry: &Entry) -> Id {
    (entry.ms, entry.seq)
}

/// The largest id before this one.
fn before_id((ms, seq): Id) -> Id {
    if seq > 0 { (ms, seq - 1) } else { (ms - 1, i64::MAX) }
}

fn compare(org: &str, expected: Vec<Entry>, found: Vec<Found>, findings: &mut Findings) -> Result<()> {
    let mut found: BTreeMap<Id, Found> = found.into_iter().map(|entry| (entry.id, entry)).collect();
    for entry in expected {
        let id = id_of(&entry);
        match found.remove(&id) {
            None => findings.missing.push(id),
            Some(found) if found.is(&entry) => findings.add("matching", id),
            Some(_) => findings.add("different", id),
        }
    }
    for (id, known) in were_placed(org, found.into_keys().collect())? {
        findings.add(if known { "expired" } else { "extra" }, id);
    }
    Ok(())
}

/// For each of these stream ids, whether an event of the org was ever given it. The ids must ascend.
fn were_placed(org: &str, ids: Vec<Id>) -> Result<Vec<(Id, bool)>> {
    let mut known = Vec::with_capacity(ids.len());
    // Only ids close to each other share a query: there may be many positions between the time of an old entry and
    // today.
    for ids in ids.chunk_by(|(before, _), (behind, _)| behind - before < NEAR) {
        let ([(first, _), ..], [.., (last, _)]) = (ids, ids) else { continue };
        let mut placed = stream_contents::placed(org, (*first, *last))?;
        placed.sort_unstable_by_key(|(ms, numbers)| (*ms, numbers.start));
        for id in ids {
            let behind = placed.partition_point(|(ms, numbers)| (*ms, numbers.start) <= *id);
            let is_known = behind.checked_sub(1).is_some_and(|at| {
                let (ms, numbers) = &placed[at];
                *ms == id.0 && numbers.contains(&id.1)
            });
            known.push((*id, is_known));
        }
    }
    Ok(known)
}

/// Discards missing entries that were trimmed during this call. Entries before `hole`, the last event that was purged
/// before it could be sent, are not missing either: the mirror has removed them, because a stream has no holes.
fn discard_trimmed(
    org: &str,
    redis: &mut Client,
    key: &str,
    hole: Id,
    findings: &mut Findings,
) -> Result<()> {
    let oldest = stream_from(redis, key, (0, 0), (i64::MAX, i64::MAX), 1)?.first().map(|entry| entry.id);
    let shared = shmem::own().ok_or(Error::NotPreloaded)?;
    let start = stream_contents::start(org, shared.progress.next_position().0)?;
    let start = start.map(|start| reader::stream_id(org, start)).transpose()?.flatten();
    let trimmed_before = start.unwrap_or_default().max(hole);
    let is_trimmed = |id: Id| id < trimmed_before && oldest.is_none_or(|oldest| id < oldest);
    for id in std::mem::take(&mut findings.missing) {
        if !is_trimmed(id) {
            findings.add("missing", id);
        }
    }
    Ok(())
}

/// A client of Redis with one request at a time. The connection's thread waits for the response, and this process waits
/// for the thread. It can therefore be cancelled, and no signal interrupts a response.
struct Client {
    connection: Connection,
}

impl Client {
    fn begin(target: Target) -> Result<Self> {
        let connection =
            Connection::start().map_err(|error| Error::Redis(format!("cannot start a thread: {error}")))?;
        let mut redis = Self { connection };
        redis.connection.connect(target);
        redis.wait().map(|_| redis)
    }

    /// The sizes that the server accepts. The mirror leaves larger events out.
    fn limits(&mut self) -> Result<Limits> {
        self.connection.run(server::limit_queries());
        server::read_limits(&self.wait()?)
    }

    /// Returns the reply to one command.
    fn query(&mut self, command: Commands) -> Result<Value> {
        self.connection.run(command);
        let mut replies = self.wait()?;
        replies::first_error(&replies)?;
        replies.pop().ok_or(Error::Internal("no reply to a command"))
    }

    fn wait(&mut self) -> Result<Vec<Value>> {
        loop {
            if let Some(response) = self.connection.response() {
                return response.map_err(Error::Redis);
            }
            process::wait_for_answer();
        }
    }
}

/// An entry in Redis.
struct Found {
    id: Id,
    fields: Vec<String>,
}

impl Found {
    fn is(&self, entry: &Entry) -> bool {
        let id = entry.event_id.to_string();
        self.fields.iter().map(String::as_str).eq(["id", &id, "ts", entry.time(), "data", &entry.data])
    }
}

/// The entries after one id up to another, including the latter.
fn stream(redis: &mut Client, key: &str, after: Id, until: Id) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    loop {
        let after = found.last().map_or(after, |entry| entry.id);
        let page = stream_from(redis, key, after, until, PAGE)?;
        let full = page.len() == PAGE;
        found.extend(page);
        if !full {
            return Ok(found);
        }
    }
}

fn stream_from(redis: &mut Client, key: &str, after: Id, until: Id, most: usize) -> Result<Vec<Found>> {
    let (after, until) = (format!("({}-{}", after.0, after.1), format!("{}-{}", until.0, until.1));
    let mut commands = Commands::default();
    commands.command(&["XRANGE", key, &after, &until, "COUNT", &most.to_string()]);
    let reply = redis.query(commands)?;
    let Value::Array(entries) = reply else {
        return Err(Error::Redis("the reply to XRANGE is not an array".into()));
    };
    entries
        .iter()
        .map(|entry| parse(entry).ok_or(Error::Redis("an entry in the reply to XRANGE is malformed".into())))
        .collect()
}

fn parse(entry: &Value) -> Option<Found> {
    let Value::Array(parts) = entry else { return None };
    let [id, Value::Array(fields)] = parts.as_slice() else { return None };
    let id = text(id)?;
    let (ms, seq) = id.split_once('-')?;
    let fields = fields.iter().map(|field| text(field).unwrap_or_default()).collect();
    Some(Found { id: (ms.parse().ok()?, seq.parse().ok()?), fields })
}
