//! Rows that were inserted into the view and are not stored yet.
//!
//! They belong to the subtransaction that inserted them and are discarded if it is rolled back. A nested statement either has
//! a subtransaction of its own or stores with the same privileges. So the statement trigger may store all rows of its own
//! subtransaction.

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

/// Size of collected rows in bytes from which they are stored before the statement ends.
const MAX_BYTES: usize = 32 << 20;

/// The rows of one org.
pub struct Rows {
    pub batch_id: i64,
    pub events: Vec<Event<'static>>,
    pub expired: usize,
    /// Retention cutoff in microseconds since the Unix epoch: older events are expired.
    cutoff: i64,
}

/// The rows of one subtransaction.
struct Pending {
    subtransaction: pg_sys::SubTransactionId,
    /// Oid of the function that stores them with the owner's privileges.
    store: pg_sys::Oid,
    bytes: usize,
    orgs: BTreeMap<Box<str>, Rows>,
}

thread_local! {
    /// Outer subtransactions first.
    static PENDING: RefCell<Vec<Pending>> = const { RefCell::new(Vec::new()) };
}

/// Registers the transaction callbacks. Called once, when the library is loaded.
pub fn register() {
    // SAFETY: the callbacks live as long as the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ended), std::ptr::null_mut());
    }
}

/// Adds a row and returns its id; `None` if it is expired.
pub fn add(org: &str, event: Event<'static>, store: pg_sys::Oid) -> Result<Option<i64>> {
    let mut pending = take(current()).unwrap_or_else(|| Pending::new(store));
    if !pending.orgs.contains_key(org) {
        pending.orgs.insert(org.into(), Rows::begin(org)?);
    }
    let bytes = size_of_val(&event) + text_length(&event);
    // An error before `pending` is put back ends the subtransaction, and its rows are discarded with it.
    let id = pending.orgs.get_mut(org).and_then(|rows| rows.add(event));
    pending.bytes += bytes;
    let full = pending.bytes >= MAX_BYTES
        || pending.orgs.get(org).is_some_and(|rows| rows.events.len() >= id::MAX_EVENTS);
    PENDING.with_borrow_mut(|all| all.push(pending));
    if full {
        call(store);
    }
    Ok(id)
}

/// Removes the rows of the current subtransaction and passes them to `each`, org by org.
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
            cutoff: batch::retention_cutoff_of(org)?,
        })
    }

    fn add(&mut self, event: Event<'static>) -> Option<i64> {
        if event.created_at < self.cutoff {
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

/// Stores the remaining rows before the transaction ends. A statement that was not run to completion, for example because SPI
/// asked for a limited number of rows, has not fired its statement trigger.
pub fn store_remaining() {
    if let Some(store) = PENDING.with_borrow(|all| all.last().map(|pending| pending.store)) {
        snapshot::current(|| call(store));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE};
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => store_remaining(),
        XACT_EVENT_ABORT => drop(PENDING.take()),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    PENDING.with_borrow_mut(|all| match event {
        // Subtransactions nested in it have higher ids.
        SUBXACT_EVENT_ABORT_SUB => all.retain(|pending| pending.subtransaction < subtransaction),
        SUBXACT_EVENT_COMMIT_SUB => {
            for pending in all.iter_mut().filter(|pending| pending.subtransaction == subtransaction) {
                pending.subtransaction = parent;
            }
        }
        _ => {}
    });
}
