//! Durable cursors as their consumers use them.

use postgres::{Error, GenericClient};
use tailstream_devkit::event::rfc3339;

use crate::database::{column, ingest, one};

/// A stretch of an org's events that a reader can no longer get. Times in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub from: Option<i64>,
    pub to: Option<i64>,
    pub reason: String,
}

/// A row of a page or a fetch: an event or a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub org: String,
    pub cursor: String,
    pub id: Option<i64>,
    pub path: Option<String>,
    pub gap: Option<Gap>,
}

impl Fetched {
    /// The event's path, or `gap` and its reason.
    pub fn label(&self) -> String {
        match (&self.path, &self.gap) {
            (Some(path), None) => path.clone(),
            (_, Some(gap)) => format!("gap {}", gap.reason),
            (None, None) => "an event without a path".to_owned(),
        }
    }
}

pub fn labels(rows: &[Fetched]) -> Vec<String> {
    rows.iter().map(Fetched::label).collect()
}

/// The ids of the events among the rows.
pub fn ids(rows: &[Fetched]) -> Vec<i64> {
    rows.iter().filter_map(|row| row.id).collect()
}

/// `ts_cursor_fetch` with these arguments, an SQL list.
#[track_caller]
pub fn fetch(client: &mut impl GenericClient, arguments: &str) -> Result<Vec<Fetched>, Error> {
    rows_of(client, &format!("ts_cursor_fetch({arguments})"))
}

/// The same where nothing can go wrong.
#[track_caller]
pub fn fetched(client: &mut impl GenericClient, arguments: &str) -> Vec<Fetched> {
    fetch(client, arguments).unwrap_or_else(|error| panic!("ts_cursor_fetch({arguments}): {error:?}"))
}

/// `ts_replay_page` with these arguments.
#[track_caller]
pub fn page(client: &mut impl GenericClient, arguments: &str) -> Vec<Fetched> {
    rows_of(client, &format!("ts_replay_page({arguments})"))
        .unwrap_or_else(|error| panic!("ts_replay_page({arguments}): {error:?}"))
}

/// `ts_cursor_ack` without an org.
pub fn ack(client: &mut impl GenericClient, name: &str, token: &str) -> Result<bool, Error> {
    Ok(client.query_one("SELECT ts_cursor_ack($1, $2)", &[&name, &token])?.get(0))
}

/// Rows in the order in which the function gives them; fails unless each is an event or a gap as documented.
#[track_caller]
fn rows_of(client: &mut impl GenericClient, call: &str) -> Result<Vec<Fetched>, Error> {
    let sql = format!(
        "SELECT org_id, cursor, kind, id, path, (extract(epoch FROM gap_from) * 1000000)::bigint,
                (extract(epoch FROM gap_to) * 1000000)::bigint, gap_reason, created_at IS NULL,
                num_nonnulls(id, created_at, host, method, path, status, response_time, response_size,
                             user_agent, referrer, ip_address, metadata) FROM {call}"
    );
    Ok(client.query(&sql, &[])?.iter().map(decode).collect())
}

#[track_caller]
fn decode(row: &postgres::Row) -> Fetched {
    let (org, cursor, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let (from, to, reason): (Option<i64>, Option<i64>, Option<String>) = (row.get(5), row.get(6), row.get(7));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(cursor.len() <= 100 && cursor.chars().all(plain), "no token: {cursor}");
    let (untimed, values): (bool, i32) = (row.get(8), row.get(9));
    let id: Option<i64> = row.get(3);
    let gap = match kind.as_str() {
        "event" => {
            assert!(!untimed && id.is_some(), "an event without its columns");
            assert_eq!((from, to, &reason), (None, None, &None), "event {id:?} has columns of a gap");
            None
        }
        "gap" => {
            assert_eq!(values, 0, "a gap has columns of an event");
            assert!(from.is_none() || to.is_none() || from <= to, "a gap from {from:?} to {to:?}");
            Some(Gap { from, to, reason: reason.expect("the reason of a gap") })
        }
        other => panic!("a row of kind {other}"),
    };
    Fetched { org, cursor, id, path: row.get(4), gap }
}

/// Every stored event of an org in the order of the positions.
pub fn arrival_order(client: &mut impl GenericClient, org: &str) -> Vec<i64> {
    let sql = format!(
        "SELECT e.id FROM tailstream.positions p
         JOIN tailstream.events e ON e.id >> 16 = p.batch_id AND e.org_id = p.org_id
         WHERE p.org_id = '{org}' ORDER BY p.seq, e.id"
    );
    column(client, &sql)
}

/// Stores one batch of events with these paths, each with its age in seconds; returns the batch's id.
#[track_caller]
pub fn store(client: &mut impl GenericClient, org: &str, events: &[(&str, i64)]) -> i64 {
    let now: i64 = one(client, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    let event = |(path, age): &(&str, i64)| {
        format!(r#"{{"path":"{path}","created_at":"{}"}}"#, rfc3339(now - age * 1_000_000))
    };
    let json: Vec<String> = events.iter().map(event).collect();
    let done = ingest(client, org, &format!("[{}]", json.join(",")), None).expect("ingest");
    assert_eq!((done.accepted as usize, done.expired), (events.len(), 0), "{events:?}");
    done.batch_id
}
