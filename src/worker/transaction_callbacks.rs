//! Callbacks at the end of a transaction: they wake the workers and count what the transaction has done.

use core::ffi::c_void;
use std::cell::Cell;

use pgrx::{pg_guard, pg_sys};

use super::utility_hook;
use crate::metrics;
use crate::shmem::{self, Role};

thread_local! {
    /// The workers that the running transaction will wake at its commit.
    static PENDING: Cell<Work> = const { Cell::new(Work::NONE) };
    /// The workers to wake after the commit.
    static COMMITTED: Cell<Work> = const { Cell::new(Work::NONE) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Work {
    sequencer: bool,
    mirror: bool,
}

impl Work {
    const NONE: Self = Self { sequencer: false, mirror: false };
}

/// Registers the callbacks. Called once, when the library is loaded.
pub fn register() {
    // SAFETY: the callback lives as long as the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(released), std::ptr::null_mut());
    }
}

/// Wakes the sequencer after the commit of the running transaction.
pub fn wake_sequencer() {
    PENDING.set(Work { sequencer: true, ..PENDING.get() });
}

/// Tells the mirror after the commit of the running transaction that orgs or tiers have changed.
pub fn wake_mirror() {
    PENDING.set(Work { mirror: true, ..PENDING.get() });
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        utility_hook::transaction_ended();
    }
    match event {
        XACT_EVENT_COMMIT => {
            COMMITTED.set(PENDING.replace(Work::NONE));
            metrics::transaction_ended(true);
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            PENDING.set(Work::NONE);
            COMMITTED.set(Work::NONE);
            metrics::transaction_ended(event == XACT_EVENT_PREPARE);
        }
        _ => {}
    }
}

/// Wakes the workers after the transaction has released its locks. Earlier, the sequencer would not see it as committed.
#[pg_guard]
unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    _committed: bool,
    top_level: bool,
    _argument: *mut c_void,
) {
    let over = phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS && top_level;
    if !over || COMMITTED.get() == Work::NONE {
        return;
    }
    let work = COMMITTED.replace(Work::NONE);
    // A database without an entry in shared memory has no workers.
    // SAFETY: reads one variable.
    let Some(shared) = shmem::find(unsafe { pg_sys::MyDatabaseId }) else { return };
    if work.sequencer {
        shared.worker(Role::Sequencer).wake();
    }
    if work.mirror {
        shared.progress.add_org_change();
        shared.worker(Role::Mirror).wake();
    }
}
