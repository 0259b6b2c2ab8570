//! `ts_mirror_verify` finds every kind of difference, and reports none if there is none.

use redis::Value;
use tailstream_e2e::stream::Entry;
use tailstream_e2e::{Sides, refused};

use crate::database;

fn redis(sides: &mut Sides, command: &str, arguments: &[&str]) {
    let mut redis = redis::cmd(command);
    redis.arg(arguments);
    redis.query::<Value>(&mut sides.redis).unwrap_or_else(|error| panic!("{command} {arguments:?}: {error}"));
}

fn id_of(entry: &Entry) -> String {
    format!("{}-{}", entry.id.0, entry.id.1)
}

/// Adds an entry to Redis by hand.
fn add(sides: &mut Sides, key: &str, id: &str, entry: &Entry, data: &str) {
    let event_id = entry.event_id.to_string();
    redis(sides, "XADD", &[key, id, "id", &event_id, "ts", &entry.time, "data", data]);
}

fn findings(sides: &mut Sides, org: &str) -> Vec<(String, i64, Option<String>, Option<String>)> {
    let sql = "SELECT finding, entries, first_stream_id, last_stream_id FROM ts_mirror_verify($1)";
    let rows = sides.client.query(sql, &[&org]).expect("ts_mirror_verify");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

#[test]
fn every_kind_of_difference_is_found() {
    let (_database, mut sides) = database("found");
    sides.ingest("acme", 1_500);
    sides.ingest("acme", 1_500);
    sides.settle(&["acme"]);
    let (key, stream) = (sides.key("acme"), sides.stream("acme"));
    let all = findings(&mut sides, "acme");
    let (first, last) = (id_of(&stream[0]), id_of(&stream[2_999]));
    assert_eq!(all, [("matching".to_owned(), 3_000, Some(first), Some(last))]);

    // Two entries are missing, at the boundary of two pages of the comparison.
    let gone = [id_of(&stream[999]), id_of(&stream[1_000])];
    redis(&mut sides, "XDEL", &[&key, &gone[0], &gone[1]]);
    let found = findings(&mut sides, "acme");
    assert_eq!(found[0].1, 2_998);
    assert_eq!(found[1..], [("missing".to_owned(), 2, Some(gone[0].clone()), Some(gone[1].clone()))]);

    // The whole stream is written by hand: with data of other events, with an entry that belongs to no event, and with
    // one without fields.
    redis(&mut sides, "DEL", &[&key]);
    for (index, entry) in stream.iter().enumerate() {
        let id = id_of(entry);
        match index {
            10 => add(&mut sides, &key, &id, entry, "{}"),
            20 => redis(&mut sides, "XADD", &[&key, &id, "id", &entry.event_id.to_string()]),
            1_499 => {
                add(&mut sides, &key, &id, entry, &entry.data);
                let (ms, number) = stream[1_500].id;
                let between =
                    if (ms, number) == (entry.id.0, entry.id.1 + 1) { None } else { Some(entry.id.1 + 1) };
                if let Some(number) = between {
                    let extra = format!("{}-{number}", entry.id.0);
                    add(&mut sides, &key, &extra, entry, &entry.data);
                }
            }
            _ => add(&mut sides, &key, &id, entry, &entry.data),
        }
    }
    let found = findings(&mut sides, "acme");
    let different = ("different".to_owned(), 2, Some(id_of(&stream[10])), Some(id_of(&stream[20])));
    assert!(found.contains(&different), "{found:?}");
    assert_eq!(found[0].1, 2_998);
    if stream[1_500].id.0 != stream[1_499].id.0 {
        assert!(found.iter().any(|(kind, count, ..)| (kind.as_str(), *count) == ("extra", 1)), "{found:?}");
    }

    redis(&mut sides, "DEL", &[&key]);
    let found: Vec<_> = sides.verify("acme");
    assert_eq!(found, [("matching".to_owned(), 0), ("missing".to_owned(), 3_000)]);

    // A backfill repairs the stream.
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    sides.settle(&["acme"]);
}

#[test]
fn an_extra_entry_after_the_last_one_is_found() {
    let (_database, mut sides) = database("tidy");
    sides.ingest("acme", 5);
    sides.settle(&["acme"]);
    let (key, stream) = (sides.key("acme"), sides.stream("acme"));
    let behind = format!("{}-{}", stream[4].id.0, stream[4].id.1 + 1);
    add(&mut sides, &key, &behind, &stream[4], &stream[4].data);
    let found: Vec<_> = sides.verify("acme");
    assert_eq!(found, [("matching".to_owned(), 5), ("extra".to_owned(), 1)], "a viewer would read it");
    refused("no org", sides.client.batch_execute("SELECT ts_mirror_verify(NULL)"), &["22004"]);
    assert_eq!(sides.verify("nobody"), [("matching".to_owned(), 0)]);
}
