//! Batches far larger than a fetch, and far more of them.

use postgres::Client;
use serde_json::Value;
use tailstream_e2e::Random;
use tailstream_e2e::cursor::{arrival_order, store};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::positions::{position, soon_placed, wait_until_all_placed};

use crate::{LONG, ORDERS, create, database};

/// More than one batch id can hold.
const EVENTS: usize = 150_000;

/// The ids that one fetch gives, and acknowledges.
#[track_caller]
fn next(client: &mut Client, name: &str, n: usize) -> Vec<i64> {
    column(client, &format!("SELECT id FROM ts_cursor_fetch('{name}', {n}, auto_ack => true)"))
}

#[test]
fn a_huge_batch_goes_on_at_its_offsets() {
    let database = database("huge");
    let mut client = database.connect();
    // Times go up and down within the batch, so that the two orders have little in common.
    let sql = format!(
        "SELECT batch_id FROM ts_ingest('acme', (SELECT json_agg(json_build_object('path', '/' || n,
             'created_at', now() - ((n * 7919::bigint) % {EVENTS}) * interval '20 milliseconds')) FROM generate_series(1, {EVENTS}) n))"
    );
    let first: i64 = one(&mut client, &sql);
    soon_placed(&mut client, first);
    wait_until_all_placed(&mut client, LONG);
    assert!(position(&mut client, first + 2).is_some(), "it takes three batch ids");
    let by_time = "SELECT id FROM tailstream.events WHERE org_id = 'acme' ORDER BY created_at, id";
    let expected = [arrival_order(&mut client, "acme"), column(&mut client, by_time)];
    for (order, expected) in ORDERS.iter().zip(&expected) {
        assert_eq!(expected.len(), EVENTS);
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        let mut seen: Vec<i64> = Vec::new();
        // To one before the border between two ids, over it one by one, and far on.
        for n in [7, 1, 65_527, 1, 1, 3, 20_000, 45_529, 5, 100_000, 1] {
            let ids = next(&mut client, order, n);
            assert_eq!(ids.len(), n.min(EVENTS - seen.len()), "{order}: after {}", seen.len());
            seen.extend(ids);
        }
        let differs = seen.iter().zip(expected).position(|(found, wanted)| found != wanted);
        assert_eq!((seen.len(), differs), (EVENTS, None), "{order}");
    }
}

#[test]
fn a_fetch_out_of_a_huge_batch_reads_little_of_it() {
    const EVENTS: i32 = 60_000;
    let database = database("part");
    let mut client = database.connect();
    // All at one moment, and so in one chunk and in their order.
    let sql = format!(
        "SELECT batch_id FROM ts_ingest('acme', (SELECT json_agg(json_build_object('path', '/' || n, 'created_at', now()))
                                                 FROM generate_series(1, {EVENTS}) n))"
    );
    let batch: i64 = one(&mut client, &sql);
    soon_placed(&mut client, batch);
    let blocks: i64 =
        one(&mut client, "SELECT max(pg_relation_size(c)) / 8192 FROM show_chunks('tailstream.events') c");
    assert!(blocks > 500, "only {blocks} blocks");
    create(&mut client, "'part', 'acme'");
    for passed in [20_000, 30_000] {
        next(&mut client, "part", passed);
        // Plans and caches.
        next(&mut client, "part", 100);
        let explained: Value = one(
            &mut client,
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM ts_cursor_fetch('part', 100)",
        );
        let plan = &explained[0]["Plan"];
        assert_eq!(plan["Actual Rows"].as_f64(), Some(100.0), "{plan}");
        let touched = plan["Shared Hit Blocks"].as_i64().unwrap_or(0)
            + plan["Shared Read Blocks"].as_i64().unwrap_or(0);
        assert!(touched < blocks / 3, "{touched} of {blocks} blocks for 100 events");
    }
}

#[test]
fn a_fetch_spans_thousands_of_batches_among_those_of_others() {
    const BATCHES: i64 = 3_000;
    let database = database("many");
    let mut client = database.connect();
    let sql = format!(
        "SELECT count(ts_ingest(CASE n % 3 WHEN 0 THEN 'acme' ELSE 'other' END,
             json_build_object('path', n::text, 'created_at', now() - n * interval '1 second'))) FROM generate_series(1, {BATCHES}) n"
    );
    assert_eq!(one::<i64>(&mut client, &sql), BATCHES);
    let last = ingest(&mut client, "acme", "[{}]", None).expect("ingest").batch_id;
    soon_placed(&mut client, last);
    wait_until_all_placed(&mut client, LONG);
    let by_time = "SELECT id FROM tailstream.events WHERE org_id = 'acme' ORDER BY created_at, id";
    let expected = [arrival_order(&mut client, "acme"), column(&mut client, by_time)];
    for (order, expected) in ORDERS.iter().zip(&expected) {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        let mut seen = Vec::new();
        for n in [1, 300, 2, 600] {
            seen.extend(next(&mut client, order, n));
        }
        assert_eq!(seen, expected[..903]);
        seen.extend(next(&mut client, order, 100_000));
        assert_eq!(&seen, expected, "{order}");
    }
}

#[test]
fn a_batch_scattered_over_hours_comes_in_fetches_of_the_size_asked_for() {
    let mut random = Random::new("scattered batches");
    let database = database("scattered");
    let mut client = database.connect();
    for _ in 0..12 {
        let ages: Vec<i64> = (0..40).map(|_| random.between(0, 9_000)).collect();
        let events: Vec<(&str, i64)> = ages.iter().map(|age| (random.pick(&["/a", "/b"]), *age)).collect();
        store(&mut client, "acme", &events);
    }
    wait_until_all_placed(&mut client, LONG);
    let all = arrival_order(&mut client, "acme");
    let under: Vec<i64> =
        column(&mut client, "SELECT id FROM tailstream.events WHERE org_id = 'acme' AND path = '/a'");
    for (filter, wanted) in [("{}", &all), (r#"{"path": "/a"}"#, &under)] {
        let expected: Vec<i64> = all.iter().copied().filter(|id| wanted.contains(id)).collect();
        for n in [1, 3, 7, 50] {
            create(&mut client, &format!("'c', 'acme', filter => '{filter}'"));
            for part in expected.chunks(n) {
                assert_eq!(next(&mut client, "c", n), part, "{filter} in fetches of {n}");
            }
            assert_eq!(next(&mut client, "c", n), [0; 0]);
            client.batch_execute("SELECT ts_cursor_drop('c')").expect("a drop");
        }
    }
}
