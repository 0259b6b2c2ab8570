//! Wakes the sessions that wait for an org's events.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgrx::pg_sys;

/// A condition variable with a count of its notifications, in shared memory.
pub struct Notifier {
    count: AtomicU64,
    condition: UnsafeCell<pg_sys::ConditionVariable>,
}

impl Default for Notifier {
    fn default() -> Self {
        let mut condition = pg_sys::ConditionVariable::default();
        // SAFETY: initialises the variable. It has no pointer to itself, so it may be moved before its first use.
        unsafe { pg_sys::ConditionVariableInit(&mut condition) };
        Self { count: AtomicU64::new(0), condition: UnsafeCell::new(condition) }
    }
}

impl Notifier {
    /// How many notifications there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Wakes all waiting sessions.
    pub fn notify_all(&self) {
        self.count.fetch_add(1, Ordering::Release);
        // SAFETY: in shared memory for as long as the server runs, with a lock of its own.
        unsafe { pg_sys::ConditionVariableBroadcast(self.condition.get()) };
    }

    /// Waits until there were other notifications than `seen`, or until `timeout` has passed; returns false for the latter.
    /// Serves interrupts.
    pub fn wait(&self, seen: u64, timeout: Duration) -> bool {
        let condition = self.condition.get();
        // Rounded up, so that the wait is not shorter than the timeout.
        let milliseconds = i64::try_from(timeout.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX).max(1);
        // SAFETY: as above. An error, for example a cancelled query, ends the transaction, and with it the wait.
        unsafe {
            pg_sys::ConditionVariablePrepareToSleep(condition);
            // From here on no notification is missed. An earlier one has increased the count.
            let notified = self.count() != seen
                || !pg_sys::ConditionVariableTimedSleep(condition, milliseconds, pg_sys::PG_WAIT_EXTENSION)
                || self.count() != seen;
            pg_sys::ConditionVariableCancelSleep();
            notified
        }
    }
}
