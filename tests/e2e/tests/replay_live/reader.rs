//! A reader that notes what its client hands over, and goes on with other connections when it has to.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use postgres::{Config, NoTls};
use tailstream_devkit::Redis;
use tailstream_e2e::cursor::Gap;

use crate::client::{Client, Handed, Item, Order, Pace, Place, Trouble};

/// Longer than the longest pause between two attempts of the mirror, and what is to be done then.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const PACE: Pace = Pace {
    page_size: 100,
    entries: 100,
    block: Duration::from_millis(100),
    quiet: Duration::from_secs(2),
    pause: Duration::from_millis(20),
};

/// What a reader reads, and how it connects.
#[derive(Debug, Clone)]
pub struct Source {
    pub sql: Config,
    redis: redis::Client,
    pub org: String,
    pub pace: Pace,
}

impl Source {
    pub fn new(sql: Config, redis: &Redis, org: &str) -> Self {
        let redis = redis::Client::open(redis.url()).expect("a client of Redis");
        Self { sql, redis, org: org.to_owned(), pace: PACE }
    }

    pub fn at(&self, pace: Pace) -> Self {
        Self { pace, ..self.clone() }
    }

    pub fn of(&self, org: &str) -> Self {
        Self { org: org.to_owned(), ..self.clone() }
    }

    fn open(&self, start: Option<SystemTime>) -> Result<Client, Trouble> {
        let sql = self.sql.connect(NoTls)?;
        Client::open(sql, self.redis.clone(), &self.org, start, self.pace)
    }

    fn go_on(&self, place: &Place) -> Result<Client, Trouble> {
        let sql = self.sql.connect(NoTls)?;
        Ok(Client::at(sql, self.redis.clone(), &self.org, place.clone(), self.pace))
    }
}

pub struct Reader {
    pub source: Source,
    start: Option<SystemTime>,
    client: Option<Client>,
    /// Behind the last item; `None` before the first.
    place: Option<Place>,
    pub handed: Vec<Handed>,
    seen: HashSet<i64>,
    /// Why the last connection was lost.
    trouble: Option<String>,
}

impl Reader {
    /// A replay from a time on, or from the earliest event that is shown.
    pub fn open(source: &Source, start: Option<SystemTime>) -> Self {
        let mut reader = Self {
            source: source.clone(),
            start,
            client: None,
            place: None,
            handed: Vec::new(),
            seen: HashSet::new(),
            trouble: None,
        };
        let began = Instant::now();
        while reader.connected().is_none() {
            assert!(began.elapsed() < PATIENCE, "a replay cannot be opened: {:?}", reader.trouble);
        }
        reader
    }

    /// One step of the client.
    pub fn step(&mut self) {
        self.step_of(usize::MAX);
    }

    /// One step, of which only so many items are taken. If there were more they are lost with the connections,
    /// and the reader goes on from the place that it kept.
    pub fn step_of(&mut self, most: usize) {
        let Some(client) = self.connected() else { return };
        let handed = match client.next() {
            Ok(handed) => handed,
            Err(trouble) => return self.lose(trouble),
        };
        let cut = handed.len() > most;
        let place = client.place().clone();
        self.take(handed.into_iter().take(most));
        if cut {
            self.client = None;
        } else {
            self.place = Some(place);
        }
    }

    /// Leaves, to come back with the next step.
    pub fn leave(&mut self) {
        self.client = None;
    }

    #[track_caller]
    fn take(&mut self, items: impl Iterator<Item = Handed>) {
        for handed in items {
            if let Item::Event { id, .. } = &handed.item {
                assert!(self.seen.insert(*id), "event {id} came twice, now with {:?}", handed.place);
            }
            self.place = Some(handed.place.clone());
            self.handed.push(handed);
        }
    }

    fn connected(&mut self) -> Option<&mut Client> {
        if self.client.is_none() {
            let client = match &self.place {
                Some(place) => self.source.go_on(place),
                None => self.source.open(self.start),
            };
            match client {
                Ok(client) => {
                    // What is opened anew after this would have another boundary.
                    self.place.get_or_insert_with(|| client.place().clone());
                    self.client = Some(client);
                }
                Err(trouble) => self.lose(trouble),
            }
        }
        self.client.as_mut()
    }

    /// Connections come and go, everything else is an error.
    fn lose(&mut self, trouble: Trouble) {
        if let Trouble::Sql(error) = &trouble {
            self.client = None;
            let gone = ["57P01", "57P02", "57P03", "55000"];
            let known = error.code().is_none_or(|code| gone.contains(&code.code()));
            assert!(known, "{error:?}");
        }
        self.trouble = Some(trouble.to_string());
        // Not a synchronisation: what is down is not asked without pause.
        std::thread::sleep(Duration::from_millis(20));
    }

    pub fn has(&self, event: i64) -> bool {
        self.seen.contains(&event)
    }

    /// Reads until this event was handed over.
    #[track_caller]
    pub fn read_until(&mut self, event: i64) {
        let began = Instant::now();
        while !self.has(event) {
            let (place, trouble) = (&self.place, &self.trouble);
            assert!(
                began.elapsed() < PATIENCE,
                "event {event} does not come: at {place:?}, after {trouble:?}"
            );
            self.step();
        }
    }

    /// Reads until all pages are read.
    #[track_caller]
    pub fn read_pages(&mut self) {
        let began = Instant::now();
        while !matches!(self.place, Some(Place::Stream { .. })) {
            assert!(began.elapsed() < PATIENCE, "the pages have no end");
            self.step();
        }
    }

    /// The events that came in pages of this order, or from the stream.
    pub fn events(&self, order: Option<Order>) -> Vec<i64> {
        let of = |handed: &&Handed| order_of(&handed.place) == order;
        self.handed.iter().filter(of).filter_map(|handed| event_id(&handed.item)).collect()
    }

    pub fn gaps(&self) -> Vec<Gap> {
        let gap = |handed: &Handed| match &handed.item {
            Item::Gap(gap) => Some(gap.clone()),
            Item::Event { .. } => None,
        };
        self.handed.iter().filter_map(gap).collect()
    }
}

/// How the pages of a place are ordered; `None` in the stream.
pub fn order_of(place: &Place) -> Option<Order> {
    match place {
        Place::Pages(pages) => Some(pages.order),
        Place::Stream { .. } => None,
    }
}

pub fn event_id(item: &Item) -> Option<i64> {
    match item {
        Item::Event { id, .. } => Some(*id),
        Item::Gap(_) => None,
    }
}
