//! What pages must show, worked out without the database.

use postgres::Client;
use serde_json::{Value, json};
use tailstream_devkit::event::{now_micros, rfc3339};
use tailstream_e2e::Random;
use tailstream_e2e::database::ingest;

use crate::HOUR;
use crate::filter::matches;
use crate::page::{Direction, Place, Request};

/// Hours of history.
const HOURS: i64 = 6;
/// Less than `tailstream.max_future_skew`, so that the test may take a while.
const AHEAD: i64 = 240_000_000;

// Among them what LIKE, quoting and upper case would mix up.
pub const HOSTS: [&str; 6] = ["web-1", "web-2", "web-10", "o'brien", "100%", ""];
pub const METHODS: [&str; 4] = ["GET", "POST", "get", "DELETE"];
pub const PATHS: [&str; 12] = [
    "/api/users",
    "/api/",
    "/api",
    "/API/users",
    "/a_b/c",
    "/aXb/c",
    "/100%/x",
    "/100/x",
    "/back\\slash",
    "/back\\\\slash",
    "/ünï/日本",
    "",
];
pub const STATUSES: [i32; 11] = [200, 201, 304, 404, 499, 500, 503, 599, 600, 0, -500];

/// An event as it was sent, and the id that it must have got.
#[derive(Debug, Clone)]
pub struct Event {
    pub place: Place,
    pub host: Option<&'static str>,
    pub method: &'static str,
    pub path: &'static str,
    pub status: i32,
    pub metadata: Option<Value>,
}

impl Event {
    fn any(random: &mut Random, at: i64) -> Self {
        Self {
            place: (at, 0),
            host: random.chance(80).then(|| random.pick(&HOSTS)),
            method: random.pick(&METHODS),
            path: random.pick(&PATHS),
            status: STATUSES[random.below(STATUSES.len())],
            metadata: random.chance(70).then(|| metadata(random)),
        }
    }

    fn json(&self) -> Value {
        let mut event = json!({
            "created_at": rfc3339(self.place.0), "method": self.method, "path": self.path, "status": self.status,
        });
        if let Some(host) = self.host {
            event["host"] = json!(host);
        }
        if let Some(metadata) = &self.metadata {
            event["metadata"] = metadata.clone();
        }
        event
    }
}

fn metadata(random: &mut Random) -> Value {
    let mut metadata = json!({ "k": random.below(3) });
    if random.chance(50) {
        metadata["tag"] = json!(random.pick(&["a", "b", "it's"]));
    }
    if random.chance(50) {
        metadata["deep"] = json!({ "x": [1, random.below(3), { "y": random.chance(50) }] });
    }
    metadata
}

/// All events of one org.
#[derive(Debug)]
pub struct Model {
    pub org: &'static str,
    now: i64,
    /// Times that many events share, among them the very ends of chunks.
    moments: Vec<i64>,
    events: Vec<Event>,
    batches: usize,
}

impl Model {
    pub fn new(org: &'static str, random: &mut Random) -> Self {
        let now = now_micros();
        let hour = now - now.rem_euclid(HOUR);
        let moment = |random: &mut Random| match random.below(4) {
            0 => hour - random.between(0, HOURS - 1) * HOUR + random.between(-1, 1),
            _ => now - random.between(-AHEAD, HOURS * HOUR),
        };
        let moments = (0..60).map(|_| moment(random)).collect();
        Self { org, now, moments, events: Vec::new(), batches: 0 }
    }

    /// A time at which events are, or were not yet.
    pub fn time(&self, random: &mut Random) -> i64 {
        match random.below(3) {
            0 => self.now - random.between(-AHEAD, HOURS * HOUR),
            _ => self.moments[random.below(self.moments.len())],
        }
    }

    /// Ingests a batch of random events, stored under two tiers by turns.
    pub fn store(&mut self, client: &mut Client, random: &mut Random, count: usize) {
        let tier = ["day", "premium"][self.batches % 2];
        self.batches += 1;
        client.execute("SELECT ts_set_org_tier($1, $2)", &[&self.org, &tier]).expect("a tier");
        let mut batch = Vec::with_capacity(count);
        for _ in 0..count {
            let at = self.time(random);
            batch.push(Event::any(random, at));
        }
        let json = Value::from_iter(batch.iter().map(Event::json)).to_string();
        let done = ingest(client, self.org, &json, None).expect("ingest");
        assert_eq!(done.accepted as usize, count, "events stored");
        for (offset, event) in batch.iter_mut().enumerate() {
            event.place.1 = (done.batch_id << 16) + offset as i64;
        }
        self.events.extend(batch);
    }

    /// What a request must show, in order, behind a place.
    pub fn beyond(&self, request: &Request<'_>, place: Option<Place>) -> Vec<Place> {
        let mut places: Vec<Place> = self
            .events
            .iter()
            .filter(|event| request.filter.as_ref().is_none_or(|filter| matches(filter, event)))
            .map(|event| event.place)
            .filter(|(at, _)| request.start.is_none_or(|start| *at >= start))
            .filter(|(at, _)| request.end.is_none_or(|end| *at < end))
            .filter(|found| place.is_none_or(|place| is_beyond(*found, place, request.direction)))
            .collect();
        places.sort_unstable();
        if request.direction == Direction::Backward {
            places.reverse();
        }
        places
    }
}

fn is_beyond(found: Place, place: Place, direction: Direction) -> bool {
    match direction {
        Direction::Forward => found > place,
        Direction::Backward => found < place,
    }
}
