//! An org changes its tier, and the purge moves its events, amid the reading.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use postgres::Client;
use tailstream_e2e::cursor::{arrival_order, fetched, ids, labels, store};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::eventually;
use tailstream_e2e::positions::{soon_placed, wait_until_all_placed};

use crate::{LONG, OLD, ORDERS, create, database, run, shorten, store_placed};

/// Every event of the two tiers together.
fn in_tiers(client: &mut Client) -> Vec<i64> {
    column(client, "SELECT count(*) FROM tailstream.events WHERE org_id = 'acme' GROUP BY tier ORDER BY tier")
}

#[test]
fn rescued_events_come_where_they_would_have_come() {
    let database = database("rescued");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", OLD), ("b", 20), ("c", OLD - 1), ("d", 10)]);
    for order in ORDERS {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}', 1, auto_ack => true"))), ["a"]);
    }
    run(&mut client, "ts_set_org_tier('acme', 'premium')");
    store_placed(&mut client, "acme", &[("e", OLD - 2), ("f", 5)]);
    shorten(&mut client);
    assert_eq!(in_tiers(&mut client), [2, 4], "a and c are with those that came on tier premium");
    assert_eq!(labels(&fetched(&mut client, "'arrival', auto_ack => true")), ["b", "c", "d", "e", "f"]);
    assert_eq!(labels(&fetched(&mut client, "'event_time', auto_ack => true")), ["c", "e", "b", "d", "f"]);
}

/// Reads everything from the beginning in small fetches.
#[track_caller]
fn read_all(client: &mut Client, name: &str, expected: &[i64], fetches: &AtomicUsize) {
    run(client, &format!("ts_cursor_seek('{name}', 'beginning')"));
    let mut seen = Vec::new();
    loop {
        let rows = fetched(client, &format!("'{name}', 40, auto_ack => true"));
        fetches.fetch_add(1, Ordering::Relaxed);
        assert!(rows.iter().all(|row| row.gap.is_none()), "{name}: a gap though nothing was lost");
        if rows.is_empty() {
            break;
        }
        seen.extend(ids(&rows));
    }
    let differs = seen.iter().zip(expected).position(|(found, wanted)| found != wanted);
    assert_eq!((seen.len(), differs), (expected.len(), None), "{name}");
}

#[test]
fn a_rescue_amid_the_reading_is_not_noticed() {
    const EVENTS: usize = 4_000;
    let database = database("rescuing");
    let mut client = database.connect();
    let sql = format!(
        "SELECT batch_id FROM ts_ingest('acme', (SELECT json_agg(json_build_object('created_at',
             now() - interval '{OLD} seconds' + (n % 60) * interval '1 second')) FROM generate_series(1, {EVENTS}) n))"
    );
    let batch = one(&mut client, &sql);
    soon_placed(&mut client, batch);
    run(&mut client, "ts_set_org_tier('acme', 'premium')");
    let by_time = "SELECT id FROM tailstream.events WHERE org_id = 'acme' ORDER BY created_at, id";
    let expected = [arrival_order(&mut client, "acme"), column(&mut client, by_time)];
    for order in ORDERS {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
    }
    let (fetches, rescued) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for (order, expected) in ORDERS.iter().zip(&expected) {
            let (mut reader, fetches, rescued) = (database.connect(), &fetches, &rescued);
            scope.spawn(move || {
                while !rescued.load(Ordering::Relaxed) {
                    read_all(&mut reader, order, expected, fetches);
                }
            });
        }
        let purge = scope.spawn(|| {
            eventually("the readers to read", LONG, || (fetches.load(Ordering::Relaxed) > 20).then_some(()));
            shorten(&mut client);
        });
        let purged = purge.join();
        rescued.store(true, Ordering::Relaxed);
        assert!(purged.is_ok(), "the purge failed");
    });
    assert_eq!(in_tiers(&mut client).len(), 1, "everything was moved");
    for (order, expected) in ORDERS.iter().zip(&expected) {
        read_all(&mut client, order, expected, &fetches);
    }
}

#[test]
fn what_an_upgrade_lets_in_comes_to_older_cursors() {
    let database = database("let_in");
    let mut client = database.connect();
    run(&mut client, "ts_set_org_tier('acme', 'standard')");
    create(&mut client, "'begun', 'acme'");
    create(&mut client, "'timed', 'acme', now() - interval '1 hour'");
    create(&mut client, "'now', 'acme', 'now'");
    create(&mut client, "'sent', 'acme'");
    run(&mut client, "ts_cursor_seek('sent', 'beginning')");
    run(&mut client, "ts_set_org_tier('acme', 'premium')");
    store_placed(&mut client, "acme", &[("older than the cursors could see", 18_000), ("new", 0)]);
    for name in ["begun", "timed", "now", "sent"] {
        let seen = labels(&fetched(&mut client, &format!("'{name}'")));
        assert_eq!(seen, ["older than the cursors could see", "new"], "{name}");
    }
}

#[test]
fn readers_of_many_orgs_on_several_tiers_get_their_own() {
    let database = database("several");
    let mut client = database.connect();
    run(&mut client, "ts_create_tier('gold', '2 days')");
    for number in 0..12 {
        let (org, tier) = (format!("org-{number}"), ["standard", "gold", "premium"][number % 3]);
        run(&mut client, &format!("ts_set_org_tier('{org}', '{tier}')"));
        create(&mut client, &format!("'c', '{org}'"));
    }
    for round in 0..5 {
        for number in 0..12 {
            let path = format!("{number} {round}");
            store(&mut client, &format!("org-{number}"), &[(&path, OLD), (&path, 0)]);
        }
    }
    ingest(&mut client, "org-1", "[]", None).expect("a batch without events");
    wait_until_all_placed(&mut client, LONG);
    for number in 0..12 {
        let rows = fetched(&mut client, &format!("'c', org => 'org-{number}'"));
        let expected: Vec<String> = (0..10).map(|event| format!("{number} {}", event / 2)).collect();
        assert_eq!(labels(&rows), expected);
        assert!(rows.iter().all(|row| row.org == format!("org-{number}")));
    }
}
