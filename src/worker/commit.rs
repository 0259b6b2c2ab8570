//! What happens when a transaction ends: the sequencer is woken, and what was done is counted.

use core::ffi::c_void;
use std::cell::Cell;

use pgrx::{pg_guard, pg_sys};

use crate::metrics;
use crate::metrics::shared::{self, Role};

thread_local! {
    static STORED: Cell<bool> = const { Cell::new(false) };
}

/// Asks PostgreSQL to be told; once, when the library is loaded.
pub fn register() {
    // SAFETY: the callback lives as long as the process.
    unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) };
}

/// The running transaction has something for the sequencer.
pub fn wake_sequencer() {
    STORED.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        // Others see the transaction's rows from here on.
        XACT_EVENT_COMMIT => {
            if STORED.replace(false)
                && let Some(slot) = shared::own()
            {
                slot.worker(Role::Sequencer).wake();
            }
            metrics::transaction_ended(true);
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            STORED.set(false);
            metrics::transaction_ended(event == XACT_EVENT_PREPARE);
        }
        _ => {}
    }
}
