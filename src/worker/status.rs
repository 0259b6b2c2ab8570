//! The status of a worker: its state in shared memory, and one line in the log for each change.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::process;
use crate::pg::time::{self, to_postgres_time};
use crate::shmem::{self, DatabaseState, Role, State};

/// Keeps state, last error and pauses of one worker.
pub struct Reporter {
    shared: &'static DatabaseState,
    role: Role,
    backoff: Backoff,
    /// The last failure, and how long the pause after it is.
    failure: Option<(Instant, Duration)>,
    /// The last error in the log; empty after a success.
    logged: String,
}

impl Reporter {
    pub fn new(shared: &'static DatabaseState, role: Role) -> Self {
        Self { shared, role, backoff: Backoff::default(), failure: None, logged: String::new() }
    }

    /// The step that failed before has succeeded: the next failure starts with the shortest pause.
    pub fn recovered(&mut self) {
        self.failure = None;
        self.backoff.reset();
    }

    /// A step has succeeded, which may be another one than the one that failed. Pauses start from the beginning again only if no
    /// step has failed for twice the last pause.
    pub fn succeeded(&mut self, state: State) {
        self.shared.worker(self.role).set_state(state);
        if self.failure.is_some_and(|(at, pause)| at.elapsed() > pause * 2) {
            self.recovered();
        }
        if !self.logged.is_empty() {
            self.logged.clear();
            pgrx::log!("tailstream {} works again", self.role.name());
        }
    }

    /// A step has failed. Returns how long to wait before the next attempt.
    pub fn failed(&mut self, message: &str) -> Duration {
        self.shared.worker(self.role).set_state(State::Failing);
        shmem::record_error(self.shared, self.role, to_postgres_time(time::now()), message);
        if self.logged != message {
            message.clone_into(&mut self.logged);
            pgrx::log!("tailstream {}: {message}", self.role.name());
        }
        let pause = self.backoff.next(process::random());
        self.failure = Some((Instant::now(), pause));
        pause
    }
}
