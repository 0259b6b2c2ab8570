//! What wakes the sessions that wait for an org's events.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgrx::pg_sys;

/// Counts how often it was rung; in shared memory.
pub struct Bell {
    rings: AtomicU64,
    waiting: UnsafeCell<pg_sys::ConditionVariable>,
}

impl Default for Bell {
    fn default() -> Self {
        let mut waiting = pg_sys::ConditionVariable::default();
        // SAFETY: sets what is to be set. It has no pointer to itself, so it may be moved as long as nobody waits.
        unsafe { pg_sys::ConditionVariableInit(&mut waiting) };
        Self { rings: AtomicU64::new(0), waiting: UnsafeCell::new(waiting) }
    }
}

impl Bell {
    pub fn rings(&self) -> u64 {
        self.rings.load(Ordering::Acquire)
    }

    pub fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Release);
        // SAFETY: in shared memory as long as the server runs, with a lock of its own.
        unsafe { pg_sys::ConditionVariableBroadcast(self.waiting.get()) };
    }

    /// Waits until it was rung more often than so, or the time is over, which comes to false. Serves interrupts.
    pub fn wait(&self, heard: u64, time: Duration) -> bool {
        let waiting = self.waiting.get();
        // Rounded up: who says how long to wait does not get less.
        let milliseconds = i64::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX).max(1);
        // SAFETY: as above. An error on the way (a cancelled query) ends the transaction, and that the wait.
        unsafe {
            pg_sys::ConditionVariablePrepareToSleep(waiting);
            // Once prepared no ring is missed: one that came before this look is counted.
            let rung = self.rings() != heard
                || !pg_sys::ConditionVariableTimedSleep(waiting, milliseconds, pg_sys::PG_WAIT_EXTENSION)
                || self.rings() != heard;
            pg_sys::ConditionVariableCancelSleep();
            rung
        }
    }
}
