//! A reader that keeps asking behind a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use tailstream_devkit::event::{json_array, now_micros, rfc3339};
use tailstream_e2e::database::ingest;
use tailstream_e2e::{Database, Random, budget};

use crate::page::{Direction, Place, Request, Row, places};

/// One writer whose times grow, so that whatever it commits lies before the reader. Returns what it stored.
fn write(database: &Database, mut random: Random, until: Instant) -> Vec<Place> {
    let mut client = database.connect();
    let mut stored: Vec<Place> = Vec::new();
    let mut at = 0;
    while Instant::now() < until {
        // Events of one time are told apart by their ids alone.
        at = now_micros().max(at + 1);
        let times: Vec<i64> = (0..=random.below(5) as i64).map(|n| at + n / 2).collect();
        let events: Vec<String> =
            times.iter().map(|at| format!(r#"{{"created_at":"{}"}}"#, rfc3339(*at))).collect();
        let mut transaction = client.transaction().expect("a transaction");
        let done = ingest(&mut transaction, "acme", &json_array(&events), None).expect("ingest");
        if random.chance(10) {
            transaction.rollback().expect("rollback");
            continue;
        }
        transaction.commit().expect("commit");
        let first = done.batch_id << 16;
        stored.extend(times.iter().enumerate().map(|(offset, at)| (*at, first + offset as i64)));
        at += 10;
    }
    stored
}

/// Asks behind the last row again and again, and once more when the writer is done.
fn follow(database: &Database, mut random: Random, writing: &AtomicBool) -> Vec<Place> {
    let mut client = database.connect();
    let mut request = Request::of("acme", Direction::Forward);
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let done = !writing.load(Ordering::Relaxed);
        request.size = [1, 3, 100][random.below(3)];
        let page = request.page(&mut client);
        let full = page.len() == request.size as usize;
        rows.extend(page);
        request.after = rows.last().map(|row| row.cursor.clone());
        if done && !full {
            return places(&rows);
        }
    }
}

#[test]
fn a_reader_behind_a_writer_sees_each_event_once() {
    let random = Random::new("tail");
    let database = crate::database("tail");
    let until = Instant::now() + budget(4.0);
    let writing = AtomicBool::new(true);
    let (stored, seen) = thread::scope(|scope| {
        let readers = [1, 2].map(|number| {
            let (database, writing, random) = (&database, &writing, random.fork(number));
            scope.spawn(move || follow(database, random, writing))
        });
        let stored = write(&database, random.fork(0), until);
        writing.store(false, Ordering::Relaxed);
        (stored, readers.map(|reader| reader.join().expect("a reader")))
    });
    assert!(stored.len() > 100, "only {} events were written", stored.len());
    for seen in seen {
        assert_eq!(seen, stored);
    }
}
