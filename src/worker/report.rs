//! What a worker says of itself: its state in shared memory, and one line in the log for each change of it.

use std::time::Duration;

use super::backoff::Backoff;
use super::process;
use crate::ingest;
use crate::metrics::shared::{self, Role, Slot, State};
use crate::tier::to_postgres_time;

/// Keeps state, last error and pauses of one worker.
pub struct Reporter {
    slot: &'static Slot,
    role: Role,
    backoff: Backoff,
    /// What the log was told last; empty while all is well.
    logged: String,
}

impl Reporter {
    pub fn new(slot: &'static Slot, role: Role) -> Self {
        Self { slot, role, backoff: Backoff::default(), logged: String::new() }
    }

    /// Something worked.
    pub fn succeeded(&mut self, state: State) {
        self.slot.worker(self.role).set_state(state);
        self.backoff.reset();
        if !self.logged.is_empty() {
            self.logged.clear();
            pgrx::log!("tailstream {} works again", self.role.name());
        }
    }

    /// The configuration was read again: the next failure is the first.
    pub fn reloaded(&mut self) {
        self.backoff.reset();
    }

    /// Something failed. Returns how long to wait before the next attempt.
    pub fn failed(&mut self, message: &str) -> Duration {
        self.slot.worker(self.role).set_state(State::Failing);
        shared::note_error(self.slot, self.role, to_postgres_time(ingest::now()), message);
        if self.logged != message {
            message.clone_into(&mut self.logged);
            pgrx::log!("tailstream {}: {message}", self.role.name());
        }
        self.backoff.next(process::random())
    }
}
