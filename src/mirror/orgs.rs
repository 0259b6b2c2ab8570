//! What the mirror has to know of an org: whether it is mirrored, since when, and how much of its stream is kept.

use std::collections::{HashMap, HashSet};

use pgrx::pg_sys::BuiltinOid::TEXTOID;
use pgrx::prelude::*;

use super::stream_contents;
use crate::error::{Result, spi};
use crate::pg::statement::{Statement, arg};
use crate::sequencer::Snapshot;
use crate::tier::cache;

/// Beyond it the memory is cleared.
const MAX_ORGS: usize = 100_000;

thread_local! {
    static FIND: Statement = const { Statement::new(
        "reading an org's mirror",
        // Infinities stand for all and for nothing: one org's row must not be an error for everybody.
        "SELECT o.mirrored, o.mirror_snapshot::text,
                CASE o.mirror_from WHEN '-infinity' THEN NULL WHEN 'infinity' THEN 9223372036854775807
                     ELSE (extract(epoch FROM o.mirror_from) * 1000)::bigint END,
                t.stream_entries, (extract(epoch FROM least(t.stream_age, interval '36500 days')) * 1000)::bigint
         FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier WHERE o.org_id = $1",
        &[TEXTOID]) };
}

/// One org.
#[derive(Debug, Clone)]
pub struct Mirrored {
    on: bool,
    /// What was committed in it is left out.
    snapshot: Option<Snapshot>,
    /// What was placed before is left out: milliseconds since the Unix epoch.
    from_ms: i64,
    pub stream_entries: i64,
    /// Milliseconds.
    pub stream_age: i64,
}

impl Mirrored {
    /// Whether a batch belongs in the stream, whatever its age.
    pub fn includes(&self, xid: u64, placed_ms: i64) -> bool {
        self.on
            && placed_ms >= self.from_ms
            && !self.snapshot.as_ref().is_some_and(|snapshot| snapshot.sees(xid))
    }

    pub fn is_on(&self) -> bool {
        self.on
    }
}

/// Remembers orgs until something about any of them changes.
#[derive(Default)]
pub struct Orgs {
    generation: u64,
    known: HashMap<String, Option<Mirrored>>,
    /// Orgs in whose streams there is no hole: nothing from before the mirror was switched off and on again.
    whole: HashSet<String>,
    /// Orgs whose streams are in the registry, or will be with what was made ready.
    registered: HashSet<String>,
}

impl Orgs {
    /// Forgets all if anything has changed; returns whether it has. In a transaction.
    pub fn refresh(&mut self) -> Result<bool> {
        // Asking for a tier has the cache watch the tables.
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
        self.whole.clear();
        self.registered.clear();
    }

    /// Whether the registry has yet to be told of the org's stream; from now on it is.
    pub fn register(&mut self, org: &str) -> bool {
        !self.registered.contains(org) && self.registered.insert(org.to_owned())
    }

    /// The registry loses the org's stream.
    pub fn unregister(&mut self, org: &str) {
        self.registered.remove(org);
    }

    /// Where the org's stream has to begin now: there may be entries before what was left out while the mirror was
    /// off. Milliseconds and number; `None` if that was seen to before, or there is nothing to see to.
    pub fn begins(&mut self, org: &str, mirrored: &Mirrored, after_seq: i64) -> Result<Option<(i64, i64)>> {
        if mirrored.snapshot.is_none() && after_seq == 0 || !self.whole.insert(org.to_owned()) {
            return Ok(None);
        }
        let first = stream_contents::positions(org, 0, i64::MAX, 1)?.pop();
        Ok(first.map(|position| (position.ms, position.stream_seq)))
    }

    /// `None` if there is no such org. In a transaction.
    pub fn get(&mut self, org: &str) -> Result<Option<Mirrored>> {
        if let Some(known) = self.known.get(org) {
            return Ok(known.clone());
        }
        let found = find(org)?;
        // An org that registers itself tells nobody.
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
