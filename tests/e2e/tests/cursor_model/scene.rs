//! Some orgs with readers and writers, and what may happen next.

use postgres::Client;
use tailstream_e2e::{Database, Random};

use crate::model::{Event, FIRST, Filter, Key, LAST, LONG, Model, Order, Org, SHORT};
use crate::reader::Reader;
use crate::storage;

const ORGS: usize = 3;
const READERS: usize = 6;
const SLOW: usize = 3;
const FILTERS: [Filter; 4] = [Filter::All, Filter::All, Filter::Failures, Filter::Under];

/// What a scene has seen.
pub struct Seen {
    pub events: usize,
    pub gaps: usize,
}

/// A transaction that has stored and not ended.
struct Slow {
    client: Client,
    stored: Vec<(usize, Vec<Event>)>,
}

pub struct Scene<'a> {
    database: &'a Database,
    random: Random,
    client: Client,
    other: Client,
    model: Model,
    /// The tier that the orgs have at first, beside premium.
    tier: String,
    slow: Vec<Slow>,
    readers: Vec<Reader>,
    /// Tokens of events, each with its org and order.
    tokens: Vec<(String, i64, usize, Order)>,
}

impl<'a> Scene<'a> {
    pub fn new(database: &'a Database, mut random: Random, number: u64) -> Self {
        let mut client = database.connect();
        let org = |org: usize| Org { name: format!("{number}-{org}"), ..Org::default() };
        let model = Model { orgs: (0..ORGS).map(org).collect(), retention: LONG, ..Model::default() };
        // Of a tier of their own no other scene has purged anything.
        let tier = format!("tier {number}");
        client.execute("SELECT ts_create_tier($1, '3 hours')", &[&tier]).expect("a tier");
        let mut register = format!(
            "SELECT ts_set_org_tier('chunks premium', 'premium'), ts_set_org_tier('chunks {tier}', '{tier}')"
        );
        for org in &model.orgs {
            register.push_str(&format!(", ts_set_org_tier('{}', '{tier}')", org.name));
        }
        client.batch_execute(&register).expect("orgs");
        let readers = (0..READERS)
            .map(|reader| {
                let order = if reader % 3 == 2 { Order::EventTime } else { Order::Arrival };
                let filter = FILTERS[random.below(FILTERS.len())];
                let name = format!("{number} {reader}");
                Reader::create(database, &model, &name, random.below(ORGS), order, filter)
            })
            .collect();
        let (slow, tokens, other) = (Vec::new(), Vec::new(), database.connect());
        Self { database, random, client, other, model, tier, slow, readers, tokens }
    }

    pub fn step(&mut self) {
        match self.random.below(100) {
            0..=15 => self.store(),
            16..=18 => self.store_in_vain(),
            19..=23 => self.begin_slow(),
            24..=30 => self.end_slow(),
            31..=33 => self.set_retention(SHORT),
            34..=36 => self.set_retention(LONG),
            37..=39 => self.change_tier(),
            40..=44 => self.purge(),
            45..=66 => self.fetch(),
            67..=78 => self.ack(),
            79..=84 => self.begin(),
            85..=91 => self.end(),
            92..=94 => self.disconnect(),
            95..=97 => self.seek(),
            _ => self.check_refusals(),
        }
    }

    /// Lets everybody read to the end.
    pub fn finish(mut self) -> Seen {
        while !self.slow.is_empty() {
            self.end_slow();
        }
        storage::learn_places(&mut self.client, &mut self.model);
        let mut seen = Seen { events: 0, gaps: 0 };
        for reader in &mut self.readers {
            if reader.is_open() {
                reader.end(true);
            }
            let before = reader.consumed.len();
            let left = self.model.orgs[reader.org].events.len() + 1;
            reader.fetch(&mut self.model, left, true, true, |_| ());
            assert!(reader.consumed.len() <= before + left);
            reader.fetch(&mut self.model, 1, true, true, |_| ());
            reader.check_consumed(&self.model);
            seen.events += reader.consumed.len();
            seen.gaps += reader.gaps;
        }
        seen
    }

    fn store(&mut self) {
        let (org, json) = (self.random.below(ORGS), storage::some_batch(&mut self.random));
        let events = storage::store(&mut self.client, &self.model.orgs[org].name, &json);
        println!("{} stores {}", self.model.orgs[org].name, Event::summary(&events));
        self.model.commit(org, events);
    }

    fn store_in_vain(&mut self) {
        let (org, json) = (self.random.below(ORGS), storage::some_batch(&mut self.random));
        storage::make_chunks(&mut self.client, &self.tier, &json);
        let mut transaction = self.client.transaction().expect("a transaction");
        storage::store(&mut transaction, &self.model.orgs[org].name, &json);
        transaction.rollback().expect("rollback");
    }

    fn begin_slow(&mut self) {
        let (org, json) = (self.random.below(ORGS), storage::some_batch(&mut self.random));
        storage::make_chunks(&mut self.client, &self.tier, &json);
        if self.slow.len() < SLOW {
            let mut client = self.database.connect();
            client.batch_execute("BEGIN").expect("begin");
            self.slow.push(Slow { client, stored: Vec::new() });
        }
        let writer = self.random.below(self.slow.len());
        let writer = &mut self.slow[writer];
        writer.stored.push((org, storage::store(&mut writer.client, &self.model.orgs[org].name, &json)));
    }

    fn end_slow(&mut self) {
        if self.slow.is_empty() {
            return;
        }
        let number = self.random.below(self.slow.len());
        let mut writer = self.slow.swap_remove(number);
        let commit = self.random.chance(75);
        writer.client.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" }).expect("the end");
        if commit {
            for (org, events) in writer.stored {
                println!("{} commits {}", self.model.orgs[org].name, Event::summary(&events));
                self.model.commit(org, events);
            }
        }
    }

    fn set_retention(&mut self, seconds: i64) {
        storage::learn_places(&mut self.client, &mut self.model);
        println!("{} keeps {seconds} s", self.tier);
        let sql = format!("SELECT ts_alter_tier('{}', '{seconds} seconds')", self.tier);
        self.client.batch_execute(&sql).expect("a retention");
        if seconds > self.model.retention {
            self.model.lengthen(self.model.retention);
        }
        self.model.retention = seconds;
    }

    fn change_tier(&mut self) {
        storage::learn_places(&mut self.client, &mut self.model);
        let org = self.random.below(ORGS);
        let org = &mut self.model.orgs[org];
        org.premium = !org.premium;
        let tier = if org.premium { "premium" } else { &self.tier };
        println!("{} has tier {tier}", org.name);
        let sql = format!("SELECT ts_set_org_tier('{}', '{tier}')", org.name);
        self.client.batch_execute(&sql).expect("a tier");
        if org.premium {
            self.model.lengthen(self.model.retention);
        }
    }

    fn purge(&mut self) {
        storage::learn_places(&mut self.client, &mut self.model);
        storage::purge(&mut self.client, &mut self.model);
    }

    fn fetch(&mut self) {
        let exact = self.random.chance(80);
        if exact {
            storage::learn_places(&mut self.client, &mut self.model);
        }
        let n = [1, 2, 5, 20, 100][self.random.below(5)];
        let (reader, auto_ack) = (self.random.below(READERS), self.random.chance(40));
        let client = &mut self.client;
        self.readers[reader]
            .fetch(&mut self.model, n, auto_ack, exact, |model| storage::learn_places(client, model));
        let reader = &self.readers[reader];
        if let Some((token, id)) = reader.token() {
            self.tokens.push((token, id, reader.org, reader.order));
        }
    }

    fn ack(&mut self) {
        let reader = self.random.below(READERS);
        let random = &mut self.random;
        self.readers[reader].ack(|rows| if random.chance(50) { rows - 1 } else { random.below(rows) });
    }

    fn begin(&mut self) {
        let reader = self.random.below(READERS);
        if !self.readers[reader].is_open() {
            self.readers[reader].begin();
        }
    }

    fn end(&mut self) {
        let commit = self.random.chance(60);
        if let Some(reader) = self.readers.iter_mut().find(|reader| reader.is_open()) {
            reader.end(commit);
        }
    }

    fn disconnect(&mut self) {
        let reader = self.random.below(READERS);
        self.readers[reader].disconnect(self.database);
    }

    fn seek(&mut self) {
        storage::learn_places(&mut self.client, &mut self.model);
        let reader = self.random.below(READERS);
        let (start, position, promised) = self.some_start(reader);
        let reader = &mut self.readers[reader];
        let by_time = reader.order == Order::EventTime && position != FIRST && !promised;
        if by_time && position.0 < self.model.floor(reader.org) {
            reader.seek_too_early(&start);
            return;
        }
        let state = reader.sight(&self.model).start(position, promised);
        reader.seek(&start, state);
    }

    /// An SQL expression, the position that it stands for, and whether the reader has a token of there.
    fn some_start(&mut self, reader: usize) -> (String, Key, bool) {
        let reader = &self.readers[reader];
        let fitting = |token: &&(String, i64, usize, Order)| token.2 == reader.org && token.3 == reader.order;
        let fitting: Vec<_> = self.tokens.iter().filter(fitting).collect();
        let events: Vec<&Event> = self.model.orgs[reader.org].events.values().collect();
        match self.random.below(4) {
            0 if !fitting.is_empty() => {
                let (token, id, ..) = fitting[self.random.below(fitting.len())];
                let key = reader.sight(&self.model).key(*id).expect("the place of an event that was fetched");
                (format!("'{token}'"), key, true)
            }
            1 if !events.is_empty() => {
                let event = events[self.random.below(events.len())];
                let time = match reader.order {
                    Order::Arrival => self.model.places[&event.batch()].1,
                    Order::EventTime => event.created_at,
                };
                (
                    format!("timestamptz 'epoch' + {time} * interval '1 microsecond'"),
                    self.before(reader.order, time),
                    false,
                )
            }
            // By time, now is amid events that are ahead; when exactly it was is not to be known here.
            2 if reader.order == Order::Arrival => {
                ("'now'".to_owned(), self.before(reader.order, i64::MAX), false)
            }
            _ => ("'beginning'".to_owned(), FIRST, false),
        }
    }

    /// The position before everything of this time and later.
    fn before(&self, order: Order, time: i64) -> Key {
        match order {
            Order::Arrival => {
                let earlier = self.model.places.values().filter(|(_, placed)| *placed < time);
                earlier.map(|(seq, _)| (*seq, LAST.1)).max().unwrap_or(FIRST)
            }
            Order::EventTime => (time, i64::MIN),
        }
    }

    fn check_refusals(&mut self) {
        let reader = self.random.below(READERS);
        self.readers[reader].ack_stale();
        for reader in self.readers.iter().filter(|reader| reader.holds()) {
            reader.check_lock(&mut self.other);
        }
    }
}
