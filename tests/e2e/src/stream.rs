//! A Redis Stream, and what it should hold according to the tables.

use std::collections::{BTreeMap, BTreeSet};

use postgres::GenericClient;
use redis::{Connection, RedisResult};

/// Entries asked for at a time: Redis serves nobody else meanwhile.
const PAGE: usize = 5_000;

/// An entry as live viewers read it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Milliseconds and number.
    pub id: (i64, i64),
    pub event_id: i64,
    pub time: String,
    pub data: String,
}

/// What XRANGE says of one entry.
type Raw = (String, Vec<String>);

fn parse((id, fields): Raw) -> Entry {
    let (ms, number) = id.split_once('-').expect("a stream id");
    let [id_name, event_id, ts_name, time, data_name, data] = fields.as_slice() else {
        panic!("entry {id} has other fields than it should: {fields:?}");
    };
    assert_eq!((&**id_name, &**ts_name, &**data_name), ("id", "ts", "data"), "the fields of {id}");
    Entry {
        id: (ms.parse().expect("milliseconds"), number.parse().expect("a number")),
        event_id: event_id.parse().expect("the id of an event"),
        time: time.clone(),
        data: data.clone(),
    }
}

/// All of a stream, oldest first.
pub fn read(redis: &mut Connection, key: &str) -> RedisResult<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let from =
            entries.last().map_or_else(|| "-".to_owned(), |last| format!("({}-{}", last.id.0, last.id.1));
        let page: Vec<Raw> =
            redis::cmd("XRANGE").arg(key).arg(from).arg("+").arg("COUNT").arg(PAGE).query(redis)?;
        let full = page.len() == PAGE;
        entries.extend(page.into_iter().map(parse));
        if !full {
            return Ok(entries);
        }
    }
}

/// Every entry that the tables have for an org, oldest first, whatever the limits of its stream.
pub fn expected(client: &mut impl GenericClient, org: &str) -> Vec<Entry> {
    let sql = r#"
        SELECT (extract(epoch FROM p.placed_at) * 1000)::bigint, p.stream_seq + (e.id & 65535), e.id,
               to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), ts_event(e)::text
        FROM tailstream.positions p JOIN tailstream.events e ON e.id >> 16 = p.batch_id AND e.org_id = p.org_id
        WHERE p.org_id = $1 ORDER BY p.seq, e.id"#;
    let rows = client.query(sql, &[&org]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let entry = |row: &postgres::Row| Entry {
        id: (row.get(0), row.get(1)),
        event_id: row.get(2),
        time: row.get(3),
        data: row.get(4),
    };
    rows.iter().map(entry).collect()
}

/// What is wrong with a stream that should be the end of `expected` and hold that many entries of it.
pub fn difference(found: &[Entry], expected: &[Entry], at_least: usize) -> Option<String> {
    let at_least = at_least.min(expected.len());
    if expected.ends_with(found) && found.len() >= at_least {
        return None;
    }
    let by_id = |entries: &[Entry]| -> BTreeMap<(i64, i64), Entry> {
        entries.iter().map(|entry| (entry.id, entry.clone())).collect()
    };
    let (have, want) = (by_id(found), by_id(expected));
    let window = by_id(&expected[expected.len() - at_least..]);
    let first = found.first().map(|entry| entry.id);
    let in_window = |id: &(i64, i64)| window.contains_key(id) || first.is_some_and(|first| *id > first);
    let missing: Vec<_> = want.keys().filter(|id| in_window(id) && !have.contains_key(id)).collect();
    let extra: Vec<_> = have.keys().filter(|id| !want.contains_key(id)).collect();
    let different: Vec<_> = have
        .iter()
        .filter_map(|(id, entry)| {
            want.get(id).filter(|wanted| *wanted != entry).map(|wanted| (entry, wanted))
        })
        .collect();
    let events: BTreeSet<i64> = found.iter().map(|entry| entry.event_id).collect();
    Some(format!(
        "{} entries in the stream, {} in the table, at least {at_least} wanted; {} missing {:?}; {} extra {:?}; {} different {:?}; {} events twice",
        found.len(),
        expected.len(),
        missing.len(),
        ends(&missing),
        extra.len(),
        ends(&extra),
        different.len(),
        different.first(),
        found.len() - events.len(),
    ))
}

fn ends<T: Copy>(list: &[T]) -> Option<(T, T)> {
    Some((*list.first()?, *list.last()?))
}
