//! Events of the past, and a ledger that looks as if they had come when they happened.

use std::time::Duration;

use postgres::Client;
use tailstream_devkit::event::{json_array, now_micros, rfc3339};
use tailstream_e2e::Database;
use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::positions::wait_until_all_placed;

use crate::MINUTE;
use crate::page::{Content, Row};

/// A database whose orgs begin on a tier that keeps much, and can be given one that keeps an hour.
pub struct Past {
    pub client: Client,
    now: i64,
    /// Dropped last, for a database with a connection cannot go.
    database: Database,
}

impl Past {
    pub fn new(database: Database) -> Self {
        let mut client = database.connect();
        client
            .batch_execute("SELECT ts_create_tier('wide', '20 days'), ts_create_tier('narrow', '1 hour')")
            .expect("tiers");
        Self { client, now: now_micros(), database }
    }

    /// The time of so many minutes ago.
    pub fn at(&self, age: i64) -> i64 {
        self.now - age * MINUTE
    }

    /// Ingests batches with events of these ages in minutes, oldest batch first.
    #[track_caller]
    pub fn store(&mut self, org: &str, batches: &[&[i64]]) {
        self.store_under("wide", org, batches);
    }

    /// The same for an org that is given another tier first.
    #[track_caller]
    pub fn store_under(&mut self, tier: &str, org: &str, batches: &[&[i64]]) {
        self.set_tier(org, tier);
        for ages in batches {
            let events: Vec<String> =
                ages.iter().map(|age| format!(r#"{{"created_at":"{}"}}"#, rfc3339(self.at(*age)))).collect();
            let done = ingest(&mut self.client, org, &json_array(&events), None).expect("ingest");
            assert_eq!(done.accepted as usize, ages.len(), "events of {ages:?} minutes ago");
        }
    }

    /// Has the ledger say that each batch came, and was given its place, when its events happened.
    #[track_caller]
    pub fn settle(&mut self) {
        if crate::has_sequencer(&self.database.name) {
            wait_until_all_placed(&mut self.client, Duration::from_secs(20));
        }
        let backdate = |table: &str, time: &str, order: &str, columns: &str| {
            format!(
                "WITH taken AS (DELETE FROM tailstream.{table} RETURNING *)
                 INSERT INTO tailstream.{table} ({order}, {time}, {columns})
                 SELECT {order}, max(date_trunc('milliseconds', least({time}, last_event_at))) OVER (ORDER BY {order}), {columns}
                 FROM taken;"
            )
        };
        let ledger = "xid, org_id, tier, event_count, first_event_at, last_event_at, block_hint";
        let batches = format!("idempotency_key, accepted, rejected, expired, {ledger}");
        let positions = format!("stream_seq, batch_id, events_before, snapshot, partial, {ledger}");
        let sql = backdate("batches", "received_at", "batch_id", &batches)
            + &backdate("positions", "placed_at", "seq", &positions);
        self.client.batch_execute(&sql).expect("an old ledger");
    }

    pub fn set_tier(&mut self, org: &str, tier: &str) {
        self.client.execute("SELECT ts_set_org_tier($1, $2)", &[&org, &tier]).expect("a tier");
    }

    /// The retention of all orgs of the tier `wide`.
    pub fn keep(&mut self, retention: &str) {
        let alter = format!("SELECT ts_alter_tier('wide', '{retention}')");
        self.client.batch_execute(&alter).expect("another retention");
    }

    /// Drops what is older than its retention.
    #[track_caller]
    pub fn purge(&mut self) {
        let dropped: i64 = one(&mut self.client, "SELECT sum(chunks_dropped) FROM ts_apply_retention()");
        assert!(dropped > 0, "nothing was purged");
    }

    /// The ages of events in minutes; gaps are left out.
    pub fn ages(&self, rows: &[Row]) -> Vec<i64> {
        let events = rows.iter().filter(|row| !row.is_gap());
        events.map(|row| (self.now - row.place().0) / MINUTE).collect()
    }

    /// Fails unless a row is a gap that covers what was lost, and nothing that the reader had before or gets behind it;
    /// all in minutes, the older one first.
    #[track_caller]
    pub fn check_gap(&self, row: &Row, lost: (i64, i64), between: (i64, i64)) {
        self.check_gap_for("retention", row, lost, between);
    }

    #[track_caller]
    pub fn check_gap_for(&self, why: &str, row: &Row, lost: (i64, i64), between: (i64, i64)) {
        let Content::Gap { from, to, reason } = &row.content else { panic!("no gap: {row:?}") };
        assert_eq!(reason, why);
        let in_minutes = |at: i64| (self.now - at) as f64 / MINUTE as f64;
        let found = (in_minutes(*from), in_minutes(*to));
        assert!(
            *from <= self.at(lost.0) && *to >= self.at(lost.1),
            "{lost:?} was lost, the gap is {found:?}"
        );
        assert!(
            *from >= self.at(between.0) && *to <= self.at(between.1),
            "{between:?} is there, the gap is {found:?}"
        );
    }
}

/// How many of the rows are gaps.
pub fn count_gaps(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.is_gap()).count()
}
