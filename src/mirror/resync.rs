//! Resyncs: streams that are written again from the table, one at a time, while the other streams receive new events.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::position::EventPosition;
use super::state::ResyncRequest;
use crate::worker::backoff::Backoff;

/// After more interruptions than this, a resync waits between its attempts. The first ones can be caused by any outage
/// of Redis.
const FREE_INTERRUPTIONS: u32 = 2;

/// One stream to be written again.
#[derive(Debug)]
pub struct Resync {
    pub request: ResyncRequest,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// The number of times that the connection was lost, or the server refused the transaction, during this resync.
    interruptions: u32,
    /// The position at which the resync continues; `None` before its first transaction.
    pub next: Option<EventPosition>,
    /// The resync does not end before the backlog has reached this position. The org was set aside because of an event
    /// before it.
    pub not_before: EventPosition,
}

/// All requested resyncs by org.
#[derive(Debug, Default)]
pub struct Resyncs {
    by_org: HashMap<String, Resync>,
    /// The org whose resync is in progress.
    current: Option<String>,
}

impl Resyncs {
    pub fn contains(&self, org: &str) -> bool {
        self.by_org.contains_key(org)
    }

    /// Takes over the requests in the table. A resync with a new request starts from the beginning.
    pub fn update(&mut self, requests: Vec<ResyncRequest>) {
        let mut before = std::mem::take(&mut self.by_org);
        for request in requests {
            let known = before.remove(&request.org);
            let resync = match known {
                Some(known) if known.request == request => known,
                // A resync that failed before may fail again, so its pauses continue to grow.
                known => Resync {
                    request,
                    not_before: known.as_ref().map(|known| known.not_before).unwrap_or_default(),
                    backoff: known.map(|known| known.backoff).unwrap_or_default(),
                    retry_at: None,
                    interruptions: 0,
                    next: None,
                },
            };
            self.by_org.insert(resync.request.org.clone(), resync);
        }
        self.current = self.current.take().filter(|org| self.by_org.contains_key(org));
    }

    /// The resync to continue: the one in progress if it is due, and otherwise any that is due.
    pub fn due(&mut self, now: Instant) -> Option<&mut Resync> {
        let is_due = |resync: &Resync| resync.retry_at.is_none_or(|at| at <= now);
        let begun = self.current.take().filter(|org| self.by_org.get(org).is_some_and(is_due));
        let next = || self.by_org.iter().find(|(_, resync)| is_due(resync)).map(|(org, _)| org.clone());
        self.current = begun.or_else(next);
        self.by_org.get_mut(self.current.as_ref()?)
    }

    pub fn get(&mut self, org: &str) -> Option<&mut Resync> {
        self.by_org.get_mut(org)
    }

    pub fn finished(&mut self, org: &str) {
        self.by_org.remove(org);
    }

    /// Lets the resync of the org end only when the backlog has reached `not_before`. The org would fail again at an
    /// earlier position.
    pub fn hold_until(&mut self, org: &str, not_before: EventPosition) {
        if let Some(resync) = self.by_org.get_mut(org) {
            resync.not_before = resync.not_before.max(not_before);
        }
    }

    /// Starts the resync from the beginning after a pause.
    pub fn failed(&mut self, org: &str, now: Instant, random: u64) {
        if let Some(resync) = self.by_org.get_mut(org) {
            resync.next = None;
        }
        self.postpone(org, now, random);
    }

    /// Starts the resync from the beginning. It waits only if it was interrupted repeatedly, because then the events of
    /// this org may be the cause.
    pub fn interrupted(&mut self, org: &str, now: Instant, random: u64) {
        let Some(resync) = self.by_org.get_mut(org) else { return };
        resync.next = None;
        resync.interruptions += 1;
        if resync.interruptions > FREE_INTERRUPTIONS {
            self.postpone(org, now, random);
        }
    }

    /// Continues the resync after a pause.
    pub fn postpone(&mut self, org: &str, now: Instant, random: u64) {
        if let Some(resync) = self.by_org.get_mut(org) {
            resync.retry_at = Some(now + resync.backoff.next(random));
        }
        self.current = None;
    }

    /// Starts all resyncs from the beginning, because the connection or the state of Redis was lost.
    pub fn restart(&mut self) {
        for resync in self.by_org.values_mut() {
            resync.next = None;
        }
    }

    /// The time until a resync is due; `None` if there is none.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        let due =
            |resync: &Resync| resync.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        self.by_org.values().map(due).min()
    }
}
