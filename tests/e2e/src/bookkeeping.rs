//! What a test knows of the batches it sent. Each event's path is `/<batch>/<event>`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use postgres::GenericClient;

/// What must have become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there, every event once.
    Acknowledged,
    /// Nothing of it is there.
    Aborted,
    /// The server was gone before it answered: all or nothing.
    Unknown,
}

/// One batch that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub org: String,
    pub events: i64,
    pub fate: Fate,
}

/// All batches of a test.
#[derive(Debug, Default)]
pub struct Bookkeeping {
    next: AtomicI64,
    sent: Mutex<HashMap<i64, Sent>>,
}

impl Bookkeeping {
    /// A number that no batch had before.
    pub fn number(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn note(&self, batch: i64, org: &str, events: usize, fate: Fate) {
        let org = org.to_owned();
        let events = events as i64;
        let mut sent = self.sent.lock().expect("bookkeeping");
        sent.insert(batch, Sent { org, events, fate });
    }

    pub fn count(&self, fate: Fate) -> usize {
        let sent = self.sent.lock().expect("bookkeeping");
        sent.values().filter(|sent| sent.fate == fate).count()
    }

    /// The batches of an org, or of all.
    pub fn sent(&self, org: Option<&str>) -> BTreeMap<i64, Sent> {
        let sent = self.sent.lock().expect("bookkeeping");
        let of_org = |batch: &Sent| org.is_none_or(|org| batch.org == org);
        sent.iter()
            .filter(|(_, batch)| of_org(batch))
            .map(|(number, batch)| (*number, batch.clone()))
            .collect()
    }

    /// Compares what is stored with `expected`. `source` is a FROM item with `path` and `org_id`.
    #[track_caller]
    pub fn check(client: &mut impl GenericClient, source: &str, expected: &BTreeMap<i64, Sent>) -> usize {
        let sql = format!(
            "SELECT split_part(path, '/', 2)::bigint, min(org_id), max(org_id), count(*), count(DISTINCT path)
             FROM {source} GROUP BY 1"
        );
        let mut missing: BTreeSet<i64> = expected
            .iter()
            .filter(|(_, sent)| sent.fate == Fate::Acknowledged)
            .map(|(number, _)| *number)
            .collect();
        let rows = match client.query(&sql, &[]) {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}: {error:?}"),
        };
        for row in &rows {
            let (batch, first, last): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
            let (count, distinct): (i64, i64) = (row.get(3), row.get(4));
            assert_eq!(count, distinct, "batch {batch} has events twice");
            missing.remove(&batch);
            let Some(sent) = expected.get(&batch) else {
                continue;
            };
            assert_eq!((first, last), (&*sent.org, &*sent.org), "the org of batch {batch}");
            assert_ne!(sent.fate, Fate::Aborted, "batch {batch} was rolled back and is there");
            assert_eq!(count, sent.events, "batch {batch} ({:?}) is not whole", sent.fate);
        }
        assert!(missing.is_empty(), "acknowledged batches are missing: {missing:?}");
        rows.len()
    }
}

/// The JSON of a batch whose events have these ages in microseconds, seen from `now`.
pub fn batch(number: i64, now: i64, ages: &[i64]) -> String {
    let mut json = String::from("[");
    for (event, age) in ages.iter().enumerate() {
        let comma = if event > 0 { "," } else { "" };
        let time = tailstream_devkit::event::rfc3339(now - age);
        write!(
            json,
            r#"{comma}{{"created_at":"{time}","path":"/{number}/{event}","host":"web-{}","status":200,"rt":0.125,"n":{event}}}"#,
            event % 7
        )
        .expect("text");
    }
    json.push(']');
    json
}

/// Fails unless the ledger and the events say the same of every batch.
#[track_caller]
pub fn check_ledger(client: &mut impl GenericClient) {
    let sql = "SELECT coalesce(e.batch, b.batch_id), e.events, b.event_count::bigint
         FROM (SELECT id >> 16 AS batch, count(*) AS events, count(DISTINCT id) AS ids, min(org_id) AS org_id,
                      min(created_at) AS first, max(created_at) AS last
               FROM tailstream.events GROUP BY 1) e
         FULL JOIN tailstream.batches b ON b.batch_id = e.batch
         WHERE e.events IS DISTINCT FROM nullif(b.event_count, 0) OR e.ids <> e.events OR e.org_id <> b.org_id
            OR e.first <> b.first_event_at OR e.last <> b.last_event_at";
    let rows = client.query(sql, &[]).expect("ledger against events");
    let differences: Vec<(i64, Option<i64>, Option<i64>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert!(differences.is_empty(), "(batch, events, ledger): {differences:?}");
}
