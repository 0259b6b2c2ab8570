//! What the scene does to the database, and what it reads back for the model.

use std::collections::HashSet;
use std::time::Duration;

use postgres::{Client, GenericClient};
use tailstream_devkit::event::{now_micros, rfc3339};
use tailstream_e2e::database::{column, ingest};
use tailstream_e2e::{Random, eventually};

use crate::model::{Event, Model};

const SECOND: i64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(15);

/// Ages in seconds. What is old is lost when the retention is shortened, what is ancient is for tier premium alone.
const FRESH: (i64, i64) = (2, 300);
const LATE: (i64, i64) = (300, 2_400);
const OLD: (i64, i64) = (8_400, 10_200);
const ANCIENT: (i64, i64) = (18_000, 21_000);
const AHEAD: (i64, i64) = (-250, -100);

/// The JSON of a random batch.
pub fn some_batch(random: &mut Random) -> String {
    let now = now_micros();
    let kind = |random: &mut Random| [FRESH, FRESH, LATE, OLD, OLD, ANCIENT, AHEAD][random.below(7)];
    let (one, mixed) = (kind(random), random.chance(25));
    let mut json = Vec::new();
    for _ in 0..[1, 2, 3, 8, 25][random.below(5)] {
        let (first, last) = if mixed { kind(random) } else { one };
        let time = rfc3339(now - random.between(first * SECOND, last * SECOND));
        let (status, path) =
            (random.pick(&["200", "404", "500", "503"]), random.pick(&["/a/x", "/b", "/c", ""]));
        json.push(format!(r#"{{"created_at":"{time}","status":{status},"path":"{path}"}}"#));
    }
    format!("[{}]", json.join(","))
}

/// Stores a batch; returns what became of it, as it lies in the table.
pub fn store(client: &mut impl GenericClient, org: &str, json: &str) -> Vec<Event> {
    let done = ingest(client, org, json, None).expect("ingest");
    let sql = "SELECT id, (extract(epoch FROM created_at) * 1000000)::bigint, status, path
               FROM tailstream.events WHERE org_id = $1 AND id >> 16 = $2 ORDER BY id";
    let rows = client.query(sql, &[&org, &done.batch_id]).expect("the stored events");
    assert_eq!(rows.len(), done.accepted as usize, "batch {}", done.batch_id);
    let event = |row: &postgres::Row| Event {
        id: row.get(0),
        created_at: row.get(1),
        status: row.get(2),
        path: row.get(3),
        gone: false,
    };
    rows.iter().map(event).collect()
}

/// Makes the chunks for a batch in a transaction of their own: one that stays open would keep others from making any.
pub fn make_chunks(client: &mut Client, tier: &str, json: &str) {
    for tier in [tier, "premium"] {
        ingest(client, &format!("chunks {tier}"), json, None).expect("ingest");
    }
}

/// Waits for the places of all that is committed.
pub fn learn_places(client: &mut Client, model: &mut Model) {
    let sql = "SELECT batch_id, seq, (extract(epoch FROM placed_at) * 1000000)::bigint FROM tailstream.positions WHERE batch_id = ANY ($1)";
    if model.unplaced.is_empty() {
        return;
    }
    let rows = eventually("the places of all batches", PATIENCE, || {
        let rows = client.query(sql, &[&model.unplaced]).expect("positions");
        (rows.len() == model.unplaced.len()).then_some(rows)
    });
    model.unplaced.clear();
    model.places.extend(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))));
}

/// Purges, twice for what has to be rescued first.
pub fn purge(client: &mut Client, model: &mut Model) {
    for _ in 0..2 {
        client.execute("SELECT * FROM ts_apply_retention()", &[]).expect("the purge");
    }
    let names: Vec<String> = model.orgs.iter().map(|org| format!("'{}'", org.name)).collect();
    let sql = format!("SELECT id FROM tailstream.events WHERE org_id IN ({})", names.join(","));
    let left: HashSet<i64> = column(client, &sql).into_iter().collect();
    println!("the purge takes {}", model.keep_only(&left));
}
