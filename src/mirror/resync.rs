//! Streams that are made again from the table, one at a time and beside the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::position::EventPosition;
use super::state::ResyncRequest;
use crate::worker::backoff::Backoff;

/// How often a resync may be interrupted before it has pauses of its own: any outage of Redis does that.
const FREE_INTERRUPTIONS: u32 = 2;

/// One stream to be made again.
#[derive(Debug)]
pub struct Resync {
    pub request: ResyncRequest,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// How often the connection was lost, or the server refused everything, while it was under way.
    interruptions: u32,
    /// Where it goes on; `None` before the first part.
    pub next: Option<EventPosition>,
    /// It is not over before the flow has come here: the org was set aside for what comes before.
    pub not_before: EventPosition,
}

/// All of them, by org.
#[derive(Debug, Default)]
pub struct Resyncs {
    by_org: HashMap<String, Resync>,
    /// The one that is being worked on.
    current: Option<String>,
}

impl Resyncs {
    pub fn contains(&self, org: &str) -> bool {
        self.by_org.contains_key(org)
    }

    /// Takes over what the table says. A request that came again begins anew.
    pub fn update(&mut self, requests: Vec<ResyncRequest>) {
        let mut before = std::mem::take(&mut self.by_org);
        for request in requests {
            let known = before.remove(&request.org);
            let resync = match known {
                Some(known) if known.request == request => known,
                // What failed before may fail again.
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

    /// The next one that is due: the one begun, else any.
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

    /// The org must not follow the others again before they have come to this place: there it would fail again.
    pub fn hold(&mut self, org: &str, not_before: EventPosition) {
        if let Some(resync) = self.by_org.get_mut(org) {
            resync.not_before = resync.not_before.max(not_before);
        }
    }

    /// Has it begin again after a pause.
    pub fn failed(&mut self, org: &str, now: Instant, random: u64) {
        if let Some(resync) = self.by_org.get_mut(org) {
            resync.next = None;
        }
        self.later(org, now, random);
    }

    /// Has it begin again, at once unless that has happened before: then its own events may be to blame.
    pub fn interrupted(&mut self, org: &str, now: Instant, random: u64) {
        let Some(resync) = self.by_org.get_mut(org) else { return };
        resync.next = None;
        resync.interruptions += 1;
        if resync.interruptions > FREE_INTERRUPTIONS {
            self.later(org, now, random);
        }
    }

    /// Has it go on after a pause.
    pub fn later(&mut self, org: &str, now: Instant, random: u64) {
        if let Some(resync) = self.by_org.get_mut(org) {
            resync.retry_at = Some(now + resync.backoff.next(random));
        }
        self.current = None;
    }

    /// Redis was lost: what was begun has to begin again.
    pub fn restart(&mut self) {
        for resync in self.by_org.values_mut() {
            resync.next = None;
        }
    }

    /// How long until one is due again.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        let due =
            |resync: &Resync| resync.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        self.by_org.values().map(due).min()
    }
}
