//! What happens when a transaction ends: the sequencer is woken, and what was done is counted.

use core::ffi::c_void;
use std::cell::Cell;

use pgrx::{pg_guard, pg_sys};

use crate::metrics;
use crate::metrics::shared::{self, Role};

thread_local! {
    /// The running transaction has something for the sequencer.
    static STORED: Cell<bool> = const { Cell::new(false) };
    /// It has committed.
    static COMMITTED: Cell<bool> = const { Cell::new(false) };
}

/// Asks PostgreSQL to be told; once, when the library is loaded.
pub fn register() {
    // SAFETY: the callback lives as long as the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(released), std::ptr::null_mut());
    }
}

/// The running transaction has something for the sequencer.
pub fn wake_sequencer() {
    STORED.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        XACT_EVENT_COMMIT => {
            COMMITTED.set(STORED.replace(false));
            metrics::transaction_ended(true);
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            STORED.set(false);
            COMMITTED.set(false);
            metrics::transaction_ended(event == XACT_EVENT_PREPARE);
        }
        _ => {}
    }
}

/// The sequencer is woken when the transaction is over, its locks included: before that it would pass it over.
#[pg_guard]
unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    _committed: bool,
    top_level: bool,
    _argument: *mut c_void,
) {
    let over = phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS && top_level;
    if over
        && COMMITTED.replace(false)
        && let Some(slot) = shared::own()
    {
        slot.worker(Role::Sequencer).wake();
    }
}
