//! What is stored, as the model knows it.

use std::collections::{BTreeMap, HashMap, HashSet};

use tailstream_devkit::event::now_micros;

/// A place in one of the two orders: (seq, id) by arrival, (time, id) by event time.
pub type Key = (i64, i64);

pub const FIRST: Key = (i64::MIN, i64::MIN);
pub const LAST: Key = (i64::MAX, i64::MAX);

const SECOND: i64 = 1_000_000;
/// The two retentions of the scene's own tier, and that of tier premium, in seconds.
pub const LONG: i64 = 3 * 3_600;
pub const SHORT: i64 = 3_600;
const PREMIUM: i64 = 7 * 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Arrival,
    EventTime,
}

impl Order {
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::EventTime => "event_time",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    All,
    Failures,
    Under,
}

impl Filter {
    pub fn json(self) -> &'static str {
        match self {
            Self::All => "{}",
            Self::Failures => r#"{"status": "5xx"}"#,
            Self::Under => r#"{"path": ["/a/", "/c"]}"#,
        }
    }

    pub fn matches(self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Failures => (500..600).contains(&event.status),
            Self::Under => event.path.starts_with("/a/") || event.path.starts_with("/c"),
        }
    }
}

/// A committed event.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: i64,
    pub created_at: i64,
    pub status: i32,
    pub path: String,
    /// The purge took it.
    pub gone: bool,
}

impl Event {
    pub fn batch(&self) -> i64 {
        self.id >> 16
    }

    /// What a log says of a batch.
    pub fn summary(events: &[Self]) -> String {
        let ages = events.iter().map(|event| (now_micros() - event.created_at) / SECOND);
        let batch = events.first().map(Self::batch);
        format!(
            "{} events as batch {batch:?}, of ages {:?} to {:?} s",
            events.len(),
            ages.clone().min(),
            ages.max()
        )
    }
}

#[derive(Debug, Default)]
pub struct Org {
    pub name: String,
    pub premium: bool,
    /// By id.
    pub events: BTreeMap<i64, Event>,
}

/// Everything that is committed.
#[derive(Debug, Default)]
pub struct Model {
    pub orgs: Vec<Org>,
    /// Of the scene's own tier, in seconds.
    pub retention: i64,
    /// Some retention was made longer: by event time nobody can tell what the purge had taken before this time.
    pub lengthened: i64,
    /// The place of each batch, and when it was given.
    pub places: HashMap<i64, (i64, i64)>,
    /// Batches with events whose place is not known yet.
    pub unplaced: Vec<i64>,
}

impl Model {
    /// Notes that what was kept for so long will be kept for longer.
    pub fn lengthen(&mut self, seconds: i64) {
        self.lengthened = self.lengthened.max(now_micros() - seconds * SECOND);
    }

    /// The time before which nothing is shown of an org.
    pub fn floor(&self, org: usize) -> i64 {
        let retention = if self.orgs[org].premium { PREMIUM } else { self.retention };
        now_micros() - retention * SECOND
    }

    pub fn is_visible(&self, org: usize, event: &Event) -> bool {
        !event.gone && event.created_at >= self.floor(org)
    }

    /// Where an event stands in an order; nowhere if it has no place yet.
    pub fn key(&self, event: &Event, order: Order) -> Option<Key> {
        match order {
            Order::Arrival => self.places.get(&event.batch()).map(|(seq, _)| (*seq, event.id)),
            Order::EventTime => Some((event.created_at, event.id)),
        }
    }

    pub fn commit(&mut self, org: usize, events: Vec<Event>) {
        if let Some(first) = events.first() {
            self.unplaced.push(first.batch());
        }
        self.orgs[org].events.extend(events.into_iter().map(|event| (event.id, event)));
    }

    /// What the purge left of everything; fails if it took what was to be seen. Returns how many events it took.
    pub fn keep_only(&mut self, left: &HashSet<i64>) -> usize {
        let mut taken = 0;
        for org in 0..self.orgs.len() {
            let floor = self.floor(org);
            for event in self.orgs[org].events.values_mut() {
                if !event.gone && !left.contains(&event.id) {
                    assert!(
                        event.created_at < floor,
                        "the purge took {event:?}, which is above the floor {floor}"
                    );
                    event.gone = true;
                    taken += 1;
                }
            }
        }
        taken
    }
}
