//! What a reader may, must and must not get.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::{Event, FIRST, Filter, Key, LAST, Model, Order};

/// A row that a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    Event(i64),
    Gap,
}

/// Where a reader is.
#[derive(Debug, Clone)]
pub struct State {
    /// Behind this everything is still to come.
    pub position: Key,
    /// Lost events of which an acknowledged gap has told.
    passed: HashSet<i64>,
    /// Events of which a reader at this position cannot know whether they come, are told as a gap, or neither.
    unclear: HashSet<i64>,
    /// The same holds for everything up to here: an acknowledged gap ends somewhere before it.
    unclear_until: Key,
    /// What is lost up to here a gap may have told already.
    told_until: Key,
}

/// A batch of which something is lost.
struct Lost {
    /// Over all of its events, also those that are not lost.
    first: Key,
    last: Key,
    events: Vec<Missing>,
    /// Nothing of it is left.
    whole: bool,
}

struct Missing {
    key: Key,
    id: i64,
    /// The reader's filter would let it pass.
    wanted: bool,
}

/// An org's events as a reader sees them now.
pub struct Sight {
    keys: HashMap<i64, Key>,
    /// What is to be shown.
    shown: BTreeMap<Key, i64>,
    lost: Vec<Lost>,
    /// By event time what is before the first may be hidden, and what is before the second may be gone: a gap
    /// tells of all that together. By arrival they say nothing.
    floor: Key,
    lengthened: Key,
}

impl Sight {
    pub fn new(model: &Model, org: usize, order: Order, filter: Filter) -> Self {
        let mut batches: HashMap<i64, Vec<(Key, &Event)>> = HashMap::new();
        let (mut keys, mut shown) = (HashMap::new(), BTreeMap::new());
        for event in model.orgs[org].events.values() {
            let Some(key) = model.key(event, order) else {
                continue;
            };
            keys.insert(event.id, key);
            batches.entry(event.batch()).or_default().push((key, event));
            if model.is_visible(org, event) && filter.matches(event) {
                shown.insert(key, event.id);
            }
        }
        let lost = batches.values().filter_map(|batch| Lost::new(model, org, filter, batch)).collect();
        let before = |time: i64| if order == Order::EventTime { (time, i64::MIN) } else { FIRST };
        let (floor, lengthened) = (before(model.floor(org)), before(model.lengthened));
        Self { keys, shown, lost, floor, lengthened }
    }

    pub fn key(&self, id: i64) -> Option<Key> {
        self.keys.get(&id).copied()
    }

    /// Whether these rows are what a reader gets that asked for `n`. `exact`: nothing was without its place then.
    pub fn check(&self, state: &State, rows: &[Got], n: usize, exact: bool) -> Result<(), String> {
        let (mut from, mut gaps, mut events, mut told) = (state.position, 0, 0, state.told_until);
        for row in rows {
            let Got::Event(id) = row else {
                gaps += 1;
                told = told.max(self.doubtful());
                continue;
            };
            let Some(key) = self.key(*id) else {
                return Err(format!("event {id} was never committed"));
            };
            if key <= from {
                return Err(format!("event {id} at {key:?} is not behind {from:?}"));
            }
            if !self.shown.contains_key(&key) {
                return Err(format!("event {id} is hidden or filtered out"));
            }
            self.check_between(state, (from, Some(key)), gaps, told)?;
            (from, gaps, events) = (key, 0, events + 1);
        }
        if events > n {
            return Err(format!("{events} events instead of {n}"));
        }
        // Behind the last of n anything may be, and nothing has to be said of it.
        let to = (exact && events < n).then_some(LAST);
        if to.is_some() || gaps > 0 { self.check_between(state, (from, to), gaps, told) } else { Ok(()) }
    }

    /// What lies between two rows that follow each other, with so many gaps between them.
    fn check_between(
        &self,
        state: &State,
        span: (Key, Option<Key>),
        gaps: usize,
        told: Key,
    ) -> Result<(), String> {
        let (from, to) = (span.0, span.1.unwrap_or(LAST));
        let inside = |key: &Key| from < *key && *key < to;
        let clear = |key: &Key, id: &i64| {
            !state.passed.contains(id) && !state.unclear.contains(id) && *key >= state.unclear_until
        };
        if span.1.is_some() {
            let skipped = self.shown.iter().find(|(key, id)| inside(key) && clear(key, id));
            if let Some((key, id)) = skipped {
                return Err(format!("event {id} at {key:?} was skipped, from {from:?} to {to:?}"));
            }
            let silent = self.lost.iter().find(|lost| {
                let pending = || lost.events.iter().filter(|missing| missing.key > state.position);
                lost.whole
                    && pending().any(|missing| missing.wanted)
                    && pending().all(|missing| inside(&missing.key) && clear(&missing.key, &missing.id))
                    && pending().all(|missing| missing.key >= told)
            });
            if let (Some(lost), 0) = (silent, gaps) {
                let batch = lost.events[0].id >> 16;
                return Err(format!("no gap between {from:?} and {to:?}, where batch {batch} is lost"));
            }
        }
        let untold =
            |lost: &Lost| lost.events.iter().filter(|missing| !state.passed.contains(&missing.id)).count();
        let near = self.lost.iter().filter(|lost| lost.first < to && lost.last > from);
        let most = near.map(untold).sum::<usize>() + usize::from(from < self.lengthened);
        if gaps > most {
            return Err(format!("{gaps} gaps between {from:?} and {to:?}, where {most} events are lost"));
        }
        Ok(())
    }

    /// Where a reader is that acknowledges this row. `complete`: behind the last row there was nothing.
    pub fn advance(&self, state: &State, rows: &[Got], row: usize, complete: bool) -> State {
        let mut next = state.clone();
        let key = |got: Option<&Got>| match got {
            Some(Got::Event(id)) => self.key(*id),
            _ => None,
        };
        let before = rows[..=row].iter().rev().find_map(|got| key(Some(got)));
        next.position = next.position.max(before.unwrap_or(FIRST));
        if rows[..=row].contains(&Got::Gap) {
            next.told_until = next.told_until.max(self.doubtful());
        }
        if rows[row] != Got::Gap {
            // A gap may have told of what lies before this row, and of the rest of its batch.
            let amid = |lost: &&Lost| lost.first < next.position && next.position < lost.last;
            next.unclear.extend(self.lost.iter().filter(amid).flat_map(Lost::ids));
            return next;
        }
        let (until, told) = match rows.get(row + 1) {
            Some(Got::Event(_)) => (key(rows.get(row + 1)), true),
            Some(Got::Gap) => (rows[row..].iter().find_map(|got| key(Some(got))), false),
            None => (None, complete),
        };
        let to = until.unwrap_or(LAST);
        for lost in &self.lost {
            let behind = lost.events.iter().filter(|missing| next.position < missing.key && missing.key < to);
            let set = if told && lost.last < to { &mut next.passed } else { &mut next.unclear };
            set.extend(behind.map(|missing| missing.id));
        }
        next.unclear_until = next.unclear_until.max(until.unwrap_or_else(|| self.doubtful()));
        next
    }

    /// Where a reader is that was sent to a place. `promised`: it has a token of there, and is told of what was lost since.
    pub fn start(&self, position: Key, promised: bool) -> State {
        let mut state = State {
            position,
            passed: HashSet::new(),
            unclear: HashSet::new(),
            unclear_until: FIRST,
            told_until: self.lengthened,
        };
        if !promised {
            state.unclear.extend(self.lost.iter().flat_map(Lost::ids));
            state.unclear_until = self.floor;
            state.told_until = self.doubtful();
        }
        state
    }

    fn doubtful(&self) -> Key {
        self.floor.max(self.lengthened)
    }
}

impl Lost {
    fn new(model: &Model, org: usize, filter: Filter, batch: &[(Key, &Event)]) -> Option<Self> {
        let missing =
            |(key, event): &(Key, &Event)| Missing { key: *key, id: event.id, wanted: filter.matches(event) };
        let events: Vec<Missing> =
            batch.iter().filter(|(_, event)| !model.is_visible(org, event)).map(missing).collect();
        let first = batch.iter().map(|(key, _)| *key).min()?;
        // As much as the ledger knows: the last moment, and the last id, which may be those of two events.
        let last = (batch.iter().map(|(key, _)| key.0).max()?, batch.iter().map(|(key, _)| key.1).max()?);
        let whole = events.len() == batch.len();
        (!events.is_empty()).then_some(Self { first, last, events, whole })
    }

    fn ids(&self) -> impl Iterator<Item = i64> {
        self.events.iter().map(|missing| missing.id)
    }
}
