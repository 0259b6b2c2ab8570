//! Waiting for events. The sequencer wakes a waiting fetch when it has given a batch of the org its position.

use std::time::{Duration, Instant};

use pgrx::datum::Interval;
use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::metrics;
use crate::session::client;
use crate::shmem;
use crate::tier::retention;

/// The longest wait: a transaction should not be open for longer than a day.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How often a waiting session checks that its client is still connected.
const LOOK: Duration = Duration::from_secs(1);

/// The time that a fetch may still wait for events.
pub struct FetchTimeout {
    notifier: Option<&'static shmem::Notifier>,
    until: Option<Instant>,
    heard: u64,
}

impl FetchTimeout {
    /// `None` does not wait. Error if a wait could not succeed.
    pub fn new(org: &str, timeout: Option<Interval>) -> Result<Self> {
        let Some(timeout) = timeout else { return Ok(Self { notifier: None, until: None, heard: 0 }) };
        let days = timeout.days().saturating_add(timeout.months().saturating_mul(30));
        let micros = retention::microseconds(days, timeout.micros());
        let Ok(micros) = u64::try_from(micros) else {
            let hint = "It is how long to wait for events.";
            return Err(Error::BadArgument { what: "timeout", value: "negative".into(), hint });
        };
        metrics::workers_here()?;
        // SAFETY: reads one variable.
        let isolation = unsafe { pg_sys::XactIsoLevel };
        if isolation >= pg_sys::XACT_REPEATABLE_READ as i32 {
            // The snapshot would never show new events.
            let serializable = isolation == pg_sys::XACT_SERIALIZABLE as i32;
            return Err(Error::CannotWait(if serializable { "serializable" } else { "repeatable read" }));
        }
        let until = Instant::now() + Duration::from_micros(micros).min(MAX_WAIT);
        Ok(Self { notifier: shmem::own().map(|shared| shared.notifier(org)), until: Some(until), heard: 0 })
    }

    pub fn may_wait(&self) -> bool {
        self.until.is_some()
    }

    /// Batches that are sequenced from here on end the next wait.
    pub fn listen(&mut self) {
        self.heard = self.notifier.map_or(0, shmem::Notifier::count);
    }

    /// Waits until a batch was sequenced since the last call of `listen`; false after the timeout. Error if the client has
    /// disconnected.
    pub fn wait(&self) -> Result<bool> {
        let (Some(notifier), Some(until)) = (self.notifier, self.until) else { return Ok(false) };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            if notifier.wait(self.heard, left.min(LOOK)) {
                return Ok(true);
            }
            client::require()?;
        }
    }
}
