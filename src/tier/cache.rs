//! The session's cache of orgs and tiers.
//!
//! A statement trigger on both tables sends a relation cache invalidation. PostgreSQL delivers it to all sessions after the
//! change commits, and to the changing session at once, and again if the change is rolled back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;

use super::lookup::{Tables, Tier};
use crate::error::{Error, Result};
use crate::settings;

/// Capacity. A full cache is cleared, so that a session that serves very many orgs does not grow without limit.
const MAX_ORGS: usize = 100_000;

struct Cache {
    /// The generation that the entries belong to.
    generation: u64,
    tables: Option<Tables>,
    tiers: Vec<Tier>,
    default: Option<Tier>,
    orgs: HashMap<Box<str>, Org>,
}

/// A registered org.
#[derive(Debug, Clone, Copy)]
pub struct Org {
    pub tier: Tier,
    /// PostgreSQL's microseconds.
    pub registered_at: i64,
    /// Earlier events may have been purged while the retention was shorter: PostgreSQL's microseconds.
    pub lost_before: i64,
}

/// Increases with every invalidation. Not a thread-local, because it is read for every row of a replay.
static GENERATION: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static WATCHED: Cell<(pg_sys::Oid, pg_sys::Oid)> = const { Cell::new((pg_sys::InvalidOid, pg_sys::InvalidOid)) };
    static CACHE: RefCell<Cache> = RefCell::new(Cache {
        generation: 0, tables: None, tiers: Vec::new(), default: None, orgs: HashMap::new(),
    });
}

/// Relation cache callback.
pub fn relation_changed(relation: pg_sys::Oid) {
    let (orgs, tiers) = WATCHED.get();
    if relation == pg_sys::InvalidOid || relation == orgs || relation == tiers {
        forget();
    }
}

/// Clears the session's cache.
pub fn forget() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Clears the caches of all sessions when this transaction commits, and that of this session now.
pub fn invalidate_everywhere(relation: pg_sys::Oid) {
    // SAFETY: the relation is the one whose trigger runs, so it is open and locked.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
    forget();
}

/// Changes whenever a cached value may have changed.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed) + settings::org_changes()
}

/// The tier of an org, `None` if it is not registered.
pub fn tier_of(org: &str) -> Result<Option<Tier>> {
    Ok(find(org)?.map(|org| org.tier))
}

/// An org; `None` if it is not registered.
pub fn find(org: &str) -> Result<Option<Org>> {
    if let Some(known) = with_current(|cache| cache.orgs.get(org).copied())? {
        return Ok(Some(known));
    }
    let before = generation();
    let tables = with_current(|cache| cache.tables)?.ok_or(Error::StorageMissing)?;
    let Some(row) = tables.org(org) else { return Ok(None) };
    let tier = with_current(|cache| cache.tiers.iter().copied().find(|tier| tier.id == row.tier))?
        .ok_or_else(|| Error::MissingTier(format!("the tier of org \"{org}\"")))?;
    let lost_before = row.lost_before.max(tier.lost_before);
    let found = Org { tier, registered_at: row.registered_at, lost_before };
    // If an invalidation arrived while this was read, the value may be outdated: it is used once and not cached.
    if generation() == before {
        CACHE.with_borrow_mut(|cache| {
            if cache.orgs.len() >= MAX_ORGS {
                cache.orgs.clear();
            }
            cache.orgs.insert(org.into(), found);
        });
    }
    Ok(Some(found))
}

/// The tier of an org that has none set.
pub fn default_tier() -> Result<Tier> {
    with_current(|cache| cache.default)?.ok_or_else(|| Error::MissingTier("tier \"standard\"".into()))
}

/// Reads from the cache, and loads it first if it was invalidated.
fn with_current<T>(read: impl FnOnce(&Cache) -> T) -> Result<T> {
    let wanted = generation();
    if CACHE.with_borrow(|cache| cache.generation != wanted || cache.tables.is_none()) {
        let tables = Tables::find()?;
        WATCHED.set((tables.orgs, tables.tiers));
        let (tiers, default) = tables.tiers();
        // If an invalidation arrives meanwhile, the next call loads again.
        CACHE.set(Cache { generation: wanted, tables: Some(tables), tiers, default, orgs: HashMap::new() });
    }
    Ok(CACHE.with_borrow(read))
}
