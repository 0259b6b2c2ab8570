//! A client of the protocol, written from docs/replay-protocol.md alone.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use postgres::Row;
use redis::{Connection, RedisError, RedisResult, Value};
use tailstream_e2e::cursor::Gap;

const OPEN: &str = "SELECT cursor, stream_key, stream_id FROM ts_replay_live($1, $2)";
const AGAIN: &str = "SELECT cursor, stream_key, stream_id FROM ts_replay_live($1, resume_after => $2)";
const PAGE: &str = "
    SELECT p.id, ts_event(p)::text, p.cursor, p.kind, (extract(epoch FROM p.gap_from) * 1000000)::bigint,
           (extract(epoch FROM p.gap_to) * 1000000)::bigint, p.gap_reason
    FROM ts_replay_page($1, NULL, NULL, after => $2, page_size => $3) AS p";
/// Waiting for Redis longer than this beyond what was asked for means that it hangs.
const ANSWER: Duration = Duration::from_secs(2);

/// Milliseconds and number of an entry.
pub type StreamId = (u64, u64);

/// What XREAD says of one entry.
type Raw = (String, Vec<String>);
/// What XREAD says of one stream.
type Answer = Option<Vec<(String, Vec<Raw>)>>;

/// How a page is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    EventTime,
    Stream,
}

/// Behind a row of a page.
#[derive(Debug, Clone)]
pub struct Pages {
    cursor: String,
    key: Option<String>,
    boundary: StreamId,
    pub order: Order,
}

/// Where a client stands: all it has to keep.
#[derive(Debug, Clone)]
pub enum Place {
    Pages(Pages),
    /// Behind an entry. Without a key there is no stream to read.
    Stream {
        key: Option<String>,
        last: StreamId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Event { id: i64, data: String },
    Gap(Gap),
}

/// What the client hands over, and the place behind it.
#[derive(Debug, Clone)]
pub struct Handed {
    pub item: Item,
    pub place: Place,
}

/// The times and sizes that the document leaves to the client.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub page_size: i32,
    pub entries: usize,
    /// How long to wait for an entry.
    pub block: Duration,
    /// How long nothing may come before the database is asked.
    pub quiet: Duration,
    /// How long to wait before asking again where there is no stream.
    pub pause: Duration,
}

#[derive(Debug)]
pub enum Trouble {
    Sql(postgres::Error),
    Redis(RedisError),
}

impl Display for Trouble {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(error) => write!(to, "{error:?}"),
            Self::Redis(error) => write!(to, "Redis: {error}"),
        }
    }
}

impl From<postgres::Error> for Trouble {
    fn from(error: postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

pub struct Client {
    sql: postgres::Client,
    redis: redis::Client,
    /// Connected when a stream is read for the first time.
    connection: Option<Connection>,
    org: String,
    pace: Pace,
    place: Place,
    /// When something came, or the database was asked; `None` since it came back to a place.
    heard: Option<Instant>,
}

impl Client {
    /// Begins a replay.
    pub fn open(
        mut sql: postgres::Client,
        redis: redis::Client,
        org: &str,
        start: Option<SystemTime>,
        pace: Pace,
    ) -> Result<Self, Trouble> {
        let row = sql.query_one(OPEN, &[&org, &start])?;
        let place = Place::Pages(Pages::of(&row, Order::EventTime));
        Ok(Self::at(sql, redis, org, place, pace))
    }

    /// Goes on from a place that was kept.
    pub fn at(sql: postgres::Client, redis: redis::Client, org: &str, place: Place, pace: Pace) -> Self {
        Self { sql, redis, connection: None, org: org.to_owned(), pace, place, heard: None }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The next step; nothing if nothing came, or if it only changed the state.
    pub fn next(&mut self) -> Result<Vec<Handed>, Trouble> {
        let handed = match self.place.clone() {
            Place::Pages(pages) => self.page(pages),
            Place::Stream { key: Some(key), last } => self.stream(&key, last),
            Place::Stream { key: None, last } => {
                thread::sleep(self.pace.pause);
                self.again(last).map(|()| Vec::new())
            }
        };
        match &handed {
            Ok(handed) if !handed.is_empty() => self.heard = Some(Instant::now()),
            // An answer that comes late would be taken for the next one.
            Err(Trouble::Redis(_)) => self.connection = None,
            _ => {}
        }
        handed
    }

    fn again(&mut self, last: StreamId) -> Result<(), Trouble> {
        let row = self.sql.query_one(AGAIN, &[&self.org, &text(last)])?;
        self.place = Place::Pages(Pages::of(&row, Order::Stream));
        self.heard = Some(Instant::now());
        Ok(())
    }

    fn page(&mut self, pages: Pages) -> Result<Vec<Handed>, Trouble> {
        let rows = self.sql.query(PAGE, &[&self.org, &pages.cursor, &self.pace.page_size])?;
        let handed: Vec<Handed> = rows.iter().map(|row| pages.handed(row)).collect();
        let events = handed.iter().filter(|handed| matches!(handed.item, Item::Event { .. })).count();
        self.place = match handed.last() {
            Some(last) if events >= self.pace.page_size as usize => last.place.clone(),
            _ => Place::Stream { key: pages.key, last: pages.boundary },
        };
        self.heard = Some(Instant::now());
        Ok(handed)
    }

    fn stream(&mut self, key: &str, last: StreamId) -> Result<Vec<Handed>, Trouble> {
        let Pace { entries, block, quiet, .. } = self.pace;
        let connection = self.connected()?;
        let (first, answer): (Vec<Raw>, Answer) = redis::pipe()
            .atomic()
            .cmd("XRANGE")
            .arg(&[key, "-", "+", "COUNT", "1"])
            .cmd("XREAD")
            .arg("COUNT")
            .arg(entries)
            .arg(&["STREAMS", key, &text(last)])
            .query(connection)?;
        let complete = match first.first() {
            Some((first, _)) => stream_id(first) <= last,
            None => newest(connection, key)? <= last,
        };
        if !complete {
            self.again(last)?;
            return Ok(Vec::new());
        }
        let entries = answer.into_iter().flatten().flat_map(|(_, entries)| entries);
        let handed: Vec<Handed> = entries.map(|entry| from_stream(key, entry)).collect();
        match handed.last() {
            Some(newest) => self.place = newest.place.clone(),
            None if self.heard.is_none_or(|heard| heard.elapsed() >= quiet) => self.again(last)?,
            None => wait(self.connected()?, key, last, block)?,
        }
        Ok(handed)
    }

    fn connected(&mut self) -> RedisResult<&mut Connection> {
        if self.connection.is_none() {
            let connection = self.redis.get_connection_with_timeout(ANSWER)?;
            connection.set_read_timeout(Some(self.pace.block + ANSWER))?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("a connection"))
    }
}

impl Pages {
    /// From what ts_replay_live returned.
    fn of(row: &Row, order: Order) -> Self {
        Self { cursor: row.get(0), key: row.get(1), boundary: stream_id(row.get(2)), order }
    }

    fn handed(&self, row: &Row) -> Handed {
        let item = match row.get(3) {
            "event" => Item::Event { id: row.get(0), data: row.get(1) },
            "gap" => Item::Gap(Gap { from: row.get(4), to: row.get(5), reason: row.get(6) }),
            other => panic!("a row of kind {other}"),
        };
        Handed { item, place: Place::Pages(Self { cursor: row.get(2), ..self.clone() }) }
    }
}

fn from_stream(key: &str, (id, fields): Raw) -> Handed {
    let field = |name: &str| {
        let found = fields.chunks_exact(2).find(|field| field[0] == name);
        found.unwrap_or_else(|| panic!("entry {id} has no field {name}"))[1].clone()
    };
    let item = Item::Event { id: field("id").parse().expect("the id of an event"), data: field("data") };
    Handed { item, place: Place::Stream { key: Some(key.to_owned()), last: stream_id(&id) } }
}

/// The last id that a stream gave, whether its entry is still there or not.
fn newest(connection: &mut Connection, key: &str) -> RedisResult<StreamId> {
    let info: RedisResult<HashMap<String, Value>> =
        redis::cmd("XINFO").arg(&["STREAM", key]).query(connection);
    match info {
        Ok(info) => Ok(stream_id(&redis::from_redis_value_ref::<String>(&info["last-generated-id"])?)),
        Err(error) if error.to_string().contains("no such key") => Ok((0, 0)),
        Err(error) => Err(error),
    }
}

/// Until there is an entry behind `last`, but not for ever. What comes is read by the next step.
fn wait(connection: &mut Connection, key: &str, last: StreamId, block: Duration) -> Result<(), Trouble> {
    let _: Value = redis::cmd("XREAD")
        .arg(&["COUNT", "1", "BLOCK"])
        .arg(block.as_millis() as u64)
        .arg(&["STREAMS", key, &text(last)])
        .query(connection)?;
    Ok(())
}

fn stream_id(text: &str) -> StreamId {
    let (ms, number) = text.split_once('-').expect("a stream id");
    (ms.parse().expect("milliseconds"), number.parse().expect("a number"))
}

fn text((ms, number): StreamId) -> String {
    format!("{ms}-{number}")
}
