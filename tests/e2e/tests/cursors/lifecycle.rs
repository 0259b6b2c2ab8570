//! A cursor's life: made, read, moved on, moved back, dropped.

use tailstream_e2e::cursor::{ack, arrival_order, fetch, fetched, ids, labels, store};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::document::event;
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::{Random, refused};

use crate::{ORDERS, create, database, run, store_placed};

#[test]
fn a_cursor_gives_what_is_behind_its_position_until_that_is_acknowledged() {
    let database = database("positions");
    let mut client = database.connect();
    for order in ORDERS {
        store(&mut client, order, &[("a", 50), ("b", 40), ("c", 30)]);
        store_placed(&mut client, order, &[("d", 20), ("e", 10)]);
        create(&mut client, &format!("'c', '{order}', order_by => '{order}'"));
        let mut next = |arguments: &str| fetched(&mut client, &format!("'c'{arguments}, org => '{order}'"));
        let first = next(", 2");
        assert_eq!(labels(&first), ["a", "b"], "{order}");
        assert_eq!(next(", 2"), first, "{order}: without an ack the same comes again, token for token");
        assert_eq!(labels(&next("")), ["a", "b", "c", "d", "e"]);
        let mut acked = |token: &str| {
            let sql = "SELECT ts_cursor_ack('c', $1, org => $2)";
            client.query_one(sql, &[&token, &order]).expect("an ack").get::<_, bool>(0)
        };
        assert!(acked(&first[1].cursor), "{order}: it moves");
        assert!(!acked(&first[1].cursor), "{order}: it was there already");
        assert!(!acked(&first[0].cursor), "{order}: it does not move back");
        let mut next = |arguments: &str| fetched(&mut client, &format!("'c'{arguments}, org => '{order}'"));
        assert_eq!(labels(&next(", 2")), ["c", "d"], "{order}: from within a batch into the next");
        assert_eq!(labels(&next(", 1, auto_ack => true")), ["c"]);
        assert_eq!(labels(&next(", auto_ack => true")), ["d", "e"]);
        assert_eq!(next(", auto_ack => true"), []);
        run(&mut client, &format!("ts_cursor_seek('c', 'beginning', org => '{order}')"));
        assert_eq!(labels(&fetched(&mut client, &format!("'c', 3, org => '{order}'"))), ["a", "b", "c"]);
        run(&mut client, &format!("ts_cursor_drop('c', org => '{order}')"));
        refused("a dropped cursor", fetch(&mut client, &format!("'c', org => '{order}'")), &["42704"]);
        create(&mut client, &format!("'c', '{order}', 'now', order_by => '{order}'"));
        let again = fetched(&mut client, &format!("'c', org => '{order}'"));
        assert_eq!(again, [], "{order}: a new one of that name knows nothing of the old one");
    }
}

#[test]
fn rows_are_events_with_all_their_columns_and_a_thousand_unless_said_otherwise() {
    let mut random = Random::new("cursor columns");
    let database = database("columns");
    let mut client = database.connect();
    let now = tailstream_devkit::event::now_micros();
    let json: Vec<String> = (0..1_500)
        .map(|_| {
            let age = random.between(0, 3_000_000_000);
            event(&mut random, now - age)
        })
        .collect();
    let done = ingest(&mut client, "acme", &format!("[{}]", json.join(",")), None).expect("ingest");
    soon_placed(&mut client, done.batch_id);
    for order in ORDERS {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        let differing: Vec<i64> = column(
            &mut client,
            &format!(
                "SELECT f.id FROM ts_cursor_fetch('{order}', 1500) f LEFT JOIN tailstream.log_events e ON e.id = f.id
                 WHERE (f.created_at, f.org_id, f.host, f.method, f.path, f.status, f.response_time, f.response_size,
                        f.user_agent, f.referrer, f.ip_address, f.metadata)
                       IS DISTINCT FROM (e.created_at, e.org_id, e.host, e.method, e.path, e.status, e.response_time,
                        e.response_size, e.user_agent, e.referrer, e.ip_address, e.metadata)
                    OR ts_event(f)::text IS DISTINCT FROM ts_event(e)::text"
            ),
        );
        assert!(differing.is_empty(), "{order}: {} events differ from what is stored", differing.len());
        let count = format!("SELECT count(*) FROM ts_cursor_fetch('{order}', auto_ack => true)");
        assert_eq!([one::<i64>(&mut client, &count), one(&mut client, &count)], [1_000, 500]);
    }
}

#[test]
fn an_ack_after_somebody_elses_seek_is_refused() {
    let database = database("seeks");
    let (mut client, mut other) = (database.connect(), database.connect());
    for order in ORDERS {
        store_placed(&mut client, order, &[("a", 30), ("b", 20), ("c", 10)]);
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
        let rows = fetched(&mut client, &format!("'{order}', 2"));
        // To where it was: even then what was fetched before counts no more.
        run(&mut other, &format!("ts_cursor_seek('{order}', 'beginning')"));
        refused("a token from before a seek", ack(&mut client, order, &rows[1].cursor), &["55000"]);
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}'"))), ["a", "b", "c"]);
        let rows = fetched(&mut client, &format!("'{order}', 2"));
        run(&mut other, &format!("ts_cursor_seek('{order}', 'now')"));
        refused("a token from before a seek", ack(&mut client, order, &rows[1].cursor), &["55000"]);
        assert_eq!(fetched(&mut client, &format!("'{order}'")), []);
        let mut seek = other.transaction().expect("a transaction");
        seek.execute(&format!("SELECT ts_cursor_seek('{order}', 'beginning')"), &[]).expect("a seek");
        let undone = fetched(&mut seek, &format!("'{order}'"));
        seek.rollback().expect("rollback");
        refused("a token of a seek undone", ack(&mut client, order, &undone[2].cursor), &["55000", "22023"]);
    }
}

#[test]
fn fetching_one_by_one_gives_every_event_once_in_order() {
    let mut random = Random::new("one by one");
    let database = database("one_by_one");
    let mut client = database.connect();
    for _ in 0..30 {
        let ages: Vec<i64> = (0..=random.below(4)).map(|_| random.between(0, 3_600)).collect();
        let events: Vec<(&str, i64)> = ages.iter().map(|age| ("x", *age)).collect();
        store(&mut client, random.pick(&["acme", "globex"]), &events);
    }
    store_placed(&mut client, "acme", &[("last", 0)]);
    let by_time = "SELECT id FROM tailstream.events WHERE org_id = 'acme' ORDER BY created_at, id";
    let expected = [arrival_order(&mut client, "acme"), column(&mut client, by_time)];
    for (order, expected) in ORDERS.iter().zip(&expected) {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        for id in expected {
            assert_eq!(ids(&fetched(&mut client, &format!("'{order}', 1, auto_ack => true"))), [*id]);
        }
        assert_eq!(fetched(&mut client, &format!("'{order}', 1")), []);
    }
}
