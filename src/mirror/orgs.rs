//! How each org is mirrored: whether it is, from which time on, and the limits of its stream.

use std::collections::{HashMap, HashSet};

use pgrx::pg_sys::BuiltinOid::TEXTOID;
use pgrx::prelude::*;

use super::stream_contents;
use crate::error::{Result, spi};
use crate::pg::statement::{Statement, arg};
use crate::sequencer::Snapshot;
use crate::tier::cache;

/// The cache is cleared when it has more orgs than this.
const MAX_ORGS: usize = 100_000;

thread_local! {
    static FIND: Statement = const { Statement::new(
        "reading an org's mirror",
        // Infinite times are mapped to the ends of the range, so that they do not cause an error, which would stop the
        // mirror for all orgs.
        "SELECT o.mirrored, o.mirror_snapshot::text,
                CASE o.mirror_from WHEN '-infinity' THEN NULL WHEN 'infinity' THEN 9223372036854775807
                     ELSE (extract(epoch FROM o.mirror_from) * 1000)::bigint END,
                t.stream_entries, (extract(epoch FROM least(t.stream_age, interval '36500 days')) * 1000)::bigint
         FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier WHERE o.org_id = $1",
        &[TEXTOID]) };
}

/// How one org is mirrored.
#[derive(Debug, Clone)]
pub struct Mirrored {
    on: bool,
    /// Batches that are visible in this snapshot are skipped.
    snapshot: Option<Snapshot>,
    /// Batches with a position from before this time are skipped. In milliseconds since the Unix epoch.
    from_ms: i64,
    pub stream_entries: i64,
    /// In milliseconds.
    pub stream_age: i64,
}

impl Mirrored {
    /// Whether a batch belongs in the stream, regardless of its age.
    pub fn includes(&self, xid: u64, placed_ms: i64) -> bool {
        self.on
            && placed_ms >= self.from_ms
            && !self.snapshot.as_ref().is_some_and(|snapshot| snapshot.sees(xid))
    }

    pub fn is_on(&self) -> bool {
        self.on
    }
}

/// A cache of orgs. It is cleared when the tiers or any org change.
#[derive(Default)]
pub struct Orgs {
    generation: u64,
    known: HashMap<String, Option<Mirrored>>,
    /// Orgs whose streams were checked for entries from before the mirror was last switched off. Such entries would
    /// precede a hole.
    checked: HashSet<String>,
    /// Orgs whose streams are in the registry, or are added to it by the transaction that was read last.
    registered: HashSet<String>,
}

impl Orgs {
    /// Clears the cache if tiers or orgs have changed, and returns whether they have. Requires a database transaction.
    pub fn refresh(&mut self) -> Result<bool> {
        // A lookup of a tier makes the tier cache watch the tables.
        cache::default_tier()?;
        let generation = cache::generation();
        let changed = generation != self.generation;
        if changed || self.known.len() > MAX_ORGS {
            self.forget();
        }
        self.generation = generation;
        Ok(changed)
    }

    pub fn forget(&mut self) {
        self.known.clear();
        self.checked.clear();
        self.registered.clear();
    }

    /// Whether the caller must add the org's stream to the registry. From now on it counts as added.
    pub fn register(&mut self, org: &str) -> bool {
        !self.registered.contains(org) && self.registered.insert(org.to_owned())
    }

    /// Notes that the org's stream is being removed from the registry.
    pub fn unregister(&mut self, org: &str) {
        self.registered.remove(org);
    }

    /// Returns the stream id before which the org's stream has to be trimmed: entries before it precede the events that
    /// were skipped while the mirror was off. `None` if the stream was trimmed before, or nothing was skipped.
    pub fn trim_before(
        &mut self,
        org: &str,
        mirrored: &Mirrored,
        after_seq: i64,
    ) -> Result<Option<(i64, i64)>> {
        if mirrored.snapshot.is_none() && after_seq == 0 || !self.checked.insert(org.to_owned()) {
            return Ok(None);
        }
        let first = stream_contents::positions(org, 0, i64::MAX, 1)?.pop();
        Ok(first.map(|position| (position.ms, position.stream_seq)))
    }

    /// How an org is mirrored; `None` if it is not registered. Requires a database transaction.
    pub fn get(&mut self, org: &str) -> Result<Option<Mirrored>> {
        if let Some(known) = self.known.get(org) {
            return Ok(known.clone());
        }
        let found = find(org)?;
        // Registration of an org does not invalidate the cache, so its absence is not cached.
        if found.is_some() {
            self.known.insert(org.to_owned(), found.clone());
        }
        Ok(found)
    }
}

fn find(org: &str) -> Result<Option<Mirrored>> {
    let reading = || spi("reading an org's mirror");
    Spi::connect_mut(|client| {
        let table = FIND.with(|find| find.run(client, &[arg(org.to_owned())]))?;
        if table.is_empty() {
            return Ok(None);
        }
        let row = table.first();
        let snapshot = row.get::<String>(2).map_err(reading())?;
        Ok(Some(Mirrored {
            on: row.get(1).map_err(reading())?.unwrap_or(false),
            snapshot: snapshot.and_then(|text| text.parse().ok()),
            from_ms: row.get(3).map_err(reading())?.unwrap_or(i64::MIN),
            stream_entries: row.get(4).map_err(reading())?.unwrap_or(1),
            stream_age: row.get(5).map_err(reading())?.unwrap_or(0),
        }))
    })
}
