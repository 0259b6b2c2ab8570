//! What this session remembers of orgs and tiers, until another one changes them.
//!
//! A statement trigger on both tables sends a relation-cache invalidation, which PostgreSQL delivers
//! to every session after the change commits, and to the changing one at once and again if it aborts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;

use super::lookup::{Tables, Tier};
use crate::error::{Error, Result};
use crate::settings;

/// Beyond it the memory is cleared: a gateway with very many orgs must not grow for ever.
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
    /// Events of before may have been purged by a shorter retention than that of today: PostgreSQL's microseconds.
    pub lost_before: i64,
}

/// Grows with every invalidation. Read for every row of a replay, hence no thread-local.
static GENERATION: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static WATCHED: Cell<(pg_sys::Oid, pg_sys::Oid)> = const { Cell::new((pg_sys::InvalidOid, pg_sys::InvalidOid)) };
    static CACHE: RefCell<Cache> = RefCell::new(Cache {
        generation: 0, tables: None, tiers: Vec::new(), default: None, orgs: HashMap::new(),
    });
}

/// PostgreSQL says that a relation has changed, or any may have.
pub fn relation_changed(relation: pg_sys::Oid) {
    let (orgs, tiers) = WATCHED.get();
    if relation == pg_sys::InvalidOid || relation == orgs || relation == tiers {
        forget();
    }
}

/// Makes this session forget all it remembers.
pub fn forget() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Makes every session forget what it remembers once this transaction commits, and this one now.
pub fn invalidate_everywhere(relation: pg_sys::Oid) {
    // SAFETY: the relation is the one whose trigger runs, so it is open and locked.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
    forget();
}

/// Changes whenever something remembered may have changed.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed) + settings::org_changes()
}

/// The tier of an org, `None` if it is not registered.
pub fn tier_of(org: &str) -> Result<Option<Tier>> {
    Ok(find(org)?.map(|org| org.tier))
}

/// What is known of an org, `None` if it is not registered.
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
    // What was read may be older than an invalidation that arrived meanwhile: then use it once.
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

/// The tier of an org that nobody gave one.
pub fn default_tier() -> Result<Tier> {
    with_current(|cache| cache.default)?.ok_or_else(|| Error::MissingTier("tier \"standard\"".into()))
}

/// Reads from the cache after bringing it up to date.
fn with_current<T>(read: impl FnOnce(&Cache) -> T) -> Result<T> {
    let wanted = generation();
    if CACHE.with_borrow(|cache| cache.generation != wanted || cache.tables.is_none()) {
        let tables = Tables::find()?;
        WATCHED.set((tables.orgs, tables.tiers));
        let (tiers, default) = tables.tiers();
        // If an invalidation came in between, the next call reads again.
        CACHE.set(Cache { generation: wanted, tables: Some(tables), tiers, default, orgs: HashMap::new() });
    }
    Ok(CACHE.with_borrow(read))
}
