//! Rows that statements have inserted and not stored yet.
//!
//! They belong to the subtransaction that inserted them: if that is rolled back they go with it. A statement inside
//! another one has its own subtransaction or stores with the same right, so what the statement trigger finds at its own
//! level it may store.

use core::ffi::c_void;
use std::cell::RefCell;
use std::collections::BTreeMap;

use pgrx::{pg_guard, pg_sys};

use super::super::batch;
use crate::error::Result;
use crate::event::Event;
use crate::locks;
use crate::pg::snapshot;
use crate::session::org_scope;
use crate::storage::id;

/// Events that one batch has ids for.
const MAX_EVENTS: usize = id::MAX_EVENTS;
/// Bytes of collected rows beyond which they are stored before the statement ends.
const MAX_BYTES: usize = 32 << 20;

/// The rows of one org.
pub struct Rows {
    pub batch_id: i64,
    pub events: Vec<Event<'static>>,
    pub expired: usize,
    /// Microseconds since the Unix epoch: what is older is expired.
    floor: i64,
}

/// The rows of one subtransaction.
struct Pending {
    subtransaction: pg_sys::SubTransactionId,
    /// What stores them, with the rights it needs.
    store: pg_sys::Oid,
    bytes: usize,
    orgs: BTreeMap<Box<str>, Rows>,
}

thread_local! {
    /// Inner subtransactions behind outer ones.
    static PENDING: RefCell<Vec<Pending>> = const { RefCell::new(Vec::new()) };
}

/// Asks PostgreSQL to be told how transactions end; once, when the library is loaded.
pub fn register() {
    // SAFETY: the callbacks live as long as the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(part_ended), std::ptr::null_mut());
    }
}

/// Takes a row in and returns its id; `None` if it is expired.
pub fn add(org: &str, event: Event<'static>, store: pg_sys::Oid) -> Result<Option<i64>> {
    let mut pending = take(current()).unwrap_or_else(|| Pending::new(store));
    if !pending.orgs.contains_key(org) {
        pending.orgs.insert(org.into(), Rows::begin(org)?);
    }
    let bytes = size_of_val(&event) + text_length(&event);
    // What fails before this is put back has ended the subtransaction, and its rows with it.
    let id = pending.orgs.get_mut(org).and_then(|rows| rows.add(event));
    pending.bytes += bytes;
    let full = pending.bytes >= MAX_BYTES
        || pending.orgs.get(org).is_some_and(|rows| rows.events.len() >= MAX_EVENTS);
    PENDING.with_borrow_mut(|all| all.push(pending));
    if full {
        call(store);
    }
    Ok(id)
}

/// Hands over what the running subtransaction has collected.
pub fn take_all(mut each: impl FnMut(&str, &Rows) -> Result<()>) -> Result<()> {
    while let Some(pending) = take(current()) {
        for (org, rows) in &pending.orgs {
            each(org, rows)?;
        }
    }
    Ok(())
}

impl Pending {
    fn new(store: pg_sys::Oid) -> Self {
        Self { subtransaction: current(), store, bytes: 0, orgs: BTreeMap::new() }
    }
}

impl Rows {
    fn begin(org: &str) -> Result<Self> {
        org_scope::permitted_org(Some(org))?;
        locks::ingesting_org(org)?;
        Ok(Self {
            batch_id: id::next_batch_id()?,
            events: Vec::new(),
            expired: 0,
            floor: batch::floor_of(org)?,
        })
    }

    fn add(&mut self, event: Event<'static>) -> Option<i64> {
        if event.created_at < self.floor {
            self.expired += 1;
            return None;
        }
        let id = id::event_id(self.batch_id, self.events.len() as i32);
        self.events.push(event);
        Some(id)
    }
}

fn current() -> pg_sys::SubTransactionId {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

fn take(subtransaction: pg_sys::SubTransactionId) -> Option<Pending> {
    PENDING.with_borrow_mut(|all| all.pop_if(|last| last.subtransaction == subtransaction))
}

fn text_length(event: &Event) -> usize {
    let texts =
        [&event.host, &event.user_agent, &event.referrer].map(|text| text.as_deref().map_or(0, str::len));
    let metadata = event.metadata.as_deref().map_or(0, str::len);
    texts.iter().sum::<usize>() + event.path.len() + event.method.len() + metadata
}

fn call(store: pg_sys::Oid) {
    // SAFETY: a function without arguments.
    unsafe { pg_sys::OidFunctionCall0Coll(store, pg_sys::InvalidOid) };
}

/// Stores what is left before a transaction ends: a statement that was not run to its end (SPI can ask for some rows only)
/// has fired no statement trigger.
pub fn store_left() {
    if let Some(store) = PENDING.with_borrow(|all| all.last().map(|pending| pending.store)) {
        snapshot::current(|| call(store));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE};
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => store_left(),
        XACT_EVENT_ABORT => drop(PENDING.take()),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn part_ended(
    event: pg_sys::SubXactEvent::Type,
    part: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    PENDING.with_borrow_mut(|all| match event {
        // Those within it have greater numbers.
        SUBXACT_EVENT_ABORT_SUB => all.retain(|pending| pending.subtransaction < part),
        SUBXACT_EVENT_COMMIT_SUB => {
            for pending in all.iter_mut().filter(|pending| pending.subtransaction == part) {
                pending.subtransaction = parent;
            }
        }
        _ => {}
    });
}
