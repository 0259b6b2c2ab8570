//! Streams that are made again from the table, one at a time and beside the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::position::EventPosition;
use super::state::Request;
use crate::worker::backoff::Backoff;

/// How often a rebuild may be interrupted before it has pauses of its own: any outage of Redis does that.
const FREE_INTERRUPTIONS: u32 = 2;

/// One stream to be made again.
#[derive(Debug)]
pub struct Rebuild {
    pub request: Request,
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
pub struct Rebuilds {
    by_org: HashMap<String, Rebuild>,
    /// The one that is being worked on.
    current: Option<String>,
}

impl Rebuilds {
    pub fn contains(&self, org: &str) -> bool {
        self.by_org.contains_key(org)
    }

    /// Takes over what the table says. A request that came again begins anew.
    pub fn update(&mut self, requests: Vec<Request>) {
        let mut before = std::mem::take(&mut self.by_org);
        for request in requests {
            let known = before.remove(&request.org);
            let rebuild = match known {
                Some(known) if known.request == request => known,
                // What failed before may fail again.
                known => Rebuild {
                    request,
                    not_before: known.as_ref().map(|known| known.not_before).unwrap_or_default(),
                    backoff: known.map(|known| known.backoff).unwrap_or_default(),
                    retry_at: None,
                    interruptions: 0,
                    next: None,
                },
            };
            self.by_org.insert(rebuild.request.org.clone(), rebuild);
        }
        self.current = self.current.take().filter(|org| self.by_org.contains_key(org));
    }

    /// The next one that is due: the one begun, else any.
    pub fn due(&mut self, now: Instant) -> Option<&mut Rebuild> {
        let is_due = |rebuild: &Rebuild| rebuild.retry_at.is_none_or(|at| at <= now);
        let begun = self.current.take().filter(|org| self.by_org.get(org).is_some_and(is_due));
        let next = || self.by_org.iter().find(|(_, rebuild)| is_due(rebuild)).map(|(org, _)| org.clone());
        self.current = begun.or_else(next);
        self.by_org.get_mut(self.current.as_ref()?)
    }

    pub fn get(&mut self, org: &str) -> Option<&mut Rebuild> {
        self.by_org.get_mut(org)
    }

    pub fn finished(&mut self, org: &str) {
        self.by_org.remove(org);
    }

    /// The org must not follow the others again before they have come to this place: there it would fail again.
    pub fn hold(&mut self, org: &str, not_before: EventPosition) {
        if let Some(rebuild) = self.by_org.get_mut(org) {
            rebuild.not_before = rebuild.not_before.max(not_before);
        }
    }

    /// Has it begin again after a pause.
    pub fn failed(&mut self, org: &str, now: Instant, random: u64) {
        if let Some(rebuild) = self.by_org.get_mut(org) {
            rebuild.next = None;
        }
        self.later(org, now, random);
    }

    /// Has it begin again, at once unless that has happened before: then its own events may be to blame.
    pub fn interrupted(&mut self, org: &str, now: Instant, random: u64) {
        let Some(rebuild) = self.by_org.get_mut(org) else { return };
        rebuild.next = None;
        rebuild.interruptions += 1;
        if rebuild.interruptions > FREE_INTERRUPTIONS {
            self.later(org, now, random);
        }
    }

    /// Has it go on after a pause.
    pub fn later(&mut self, org: &str, now: Instant, random: u64) {
        if let Some(rebuild) = self.by_org.get_mut(org) {
            rebuild.retry_at = Some(now + rebuild.backoff.next(random));
        }
        self.current = None;
    }

    /// Redis was lost: what was begun has to begin again.
    pub fn restart(&mut self) {
        for rebuild in self.by_org.values_mut() {
            rebuild.next = None;
        }
    }

    /// How long until one is due again.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        let due = |rebuild: &Rebuild| {
            rebuild.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
        };
        self.by_org.values().map(due).min()
    }
}
