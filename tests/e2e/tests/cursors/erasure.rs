//! An erased org leaves no cursors, and its readers are told if the name is used again.

use std::thread;

use tailstream_e2e::cursor::{ack, fetch, fetched, labels, page};
use tailstream_e2e::database::{column, one};
use tailstream_e2e::{refused, sqlstate};

use crate::{ORDERS, create, cursor_table, database, pid, run, store_placed, wait_until_idle};

const ERASED: &str = "gap erased";

#[test]
fn an_erased_orgs_cursors_are_gone_and_others_stay() {
    let database = database("erased");
    let mut client = database.connect();
    for org in ["gone", "stays"] {
        store_placed(&mut client, org, &[("a", 20), ("b", 10)]);
        for order in ORDERS {
            create(&mut client, &format!("'{order}', '{org}', order_by => '{order}'"));
        }
    }
    let token = fetched(&mut client, "'arrival', org => 'gone'")[0].cursor.clone();
    client.batch_execute("BEGIN; SELECT * FROM ts_erase_org('gone'); ROLLBACK").expect("an erasure undone");
    assert_eq!(fetched(&mut client, "'arrival', org => 'gone'").len(), 2);
    client.batch_execute("SELECT * FROM ts_erase_org('gone')").expect("an erasure");
    for order in ORDERS {
        let gone = fetch(&mut client, &format!("'{order}', org => 'gone'"));
        refused("a cursor of an erased org", gone, &["42704"]);
        // The name is no longer that of two orgs.
        assert_eq!(fetched(&mut client, &format!("'{order}'")).len(), 2);
    }
    let table = cursor_table(&mut client);
    let named = format!("SELECT count(*) FROM {table} c WHERE c::text LIKE '%gone%'");
    assert_eq!(one::<i64>(&mut client, &named), 0, "nothing is left with its name");
    create(&mut client, "'arrival', 'gone'");
    let old = client.query("SELECT ts_cursor_ack('arrival', $1, org => 'gone')", &[&token]);
    refused("a token of the org before", old, &["22023", "55000"]);
    assert_eq!(column::<String>(&mut client, "SELECT org_id FROM tailstream.cursors ORDER BY 1").len(), 3);
}

#[test]
fn a_token_of_an_erased_org_begins_with_a_gap() {
    let database = database("reused");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 30), ("b", 20)]);
    create(&mut client, "'c', 'acme'");
    let by_time = page(&mut client, "'acme', NULL, NULL, page_size => 1")[0].cursor.clone();
    let by_arrival = fetched(&mut client, "'c', 1")[0].cursor.clone();
    run(&mut client, "ts_erase_org('acme')");
    store_placed(&mut client, "acme", &[("new", 10), ("newer", 5)]);
    let paged = page(&mut client, &format!("'acme', NULL, NULL, after => '{by_time}'"));
    assert_eq!(labels(&paged), [ERASED, "new", "newer"]);
    let paged = page(&mut client, &format!("'acme', NULL, NULL, after => '{}'", paged[0].cursor));
    assert_eq!(labels(&paged), ["new", "newer"], "behind the gap");
    for (order, token) in ORDERS.iter().zip([&by_arrival, &by_time]) {
        create(&mut client, &format!("'{order}', 'acme', start => '{token}', order_by => '{order}'"));
        let rows = fetched(&mut client, &format!("'{order}'"));
        assert_eq!(labels(&rows), [ERASED, "new", "newer"], "{order}");
        assert!(ack(&mut client, order, &rows[0].cursor).expect("an ack"));
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}'"))), ["new", "newer"], "{order}");
        run(&mut client, &format!("ts_cursor_seek('{order}', '{token}')"));
        let rows = fetched(&mut client, &format!("'{order}', auto_ack => true"));
        assert_eq!(labels(&rows), [ERASED, "new", "newer"], "{order} sent there");
        assert_eq!(fetched(&mut client, &format!("'{order}'")), []);
    }
}

#[test]
fn who_uses_a_cursor_while_its_org_is_erased_gets_nothing_of_the_next_one() {
    let database = database("replaced");
    let (mut client, mut consumer) = (database.connect(), database.connect());
    store_placed(&mut client, "acme", &[("a", 30), ("b", 20)]);
    create(&mut client, "'c', 'acme'");
    consumer.batch_execute("BEGIN").expect("begin");
    let rows = fetched(&mut consumer, "'c', 1");
    run(&mut client, "ts_erase_org('acme')");
    store_placed(&mut client, "acme", &[("new", 0)]);
    refused("an ack of an erased cursor", ack(&mut consumer, "c", &rows[0].cursor), &["42704"]);
    consumer.batch_execute("ROLLBACK").expect("rollback");

    create(&mut client, "'c', 'acme', 'now'");
    let waiting = pid(&mut consumer);
    let rows = thread::scope(|scope| {
        let rows = scope.spawn(move || fetch(&mut consumer, "'c', timeout => '5 s', auto_ack => true"));
        wait_until_idle(&mut client, waiting);
        run(&mut client, "ts_erase_org('acme')");
        store_placed(&mut client, "acme", &[("newest", 0)]);
        rows.join().expect("the fetch that waits")
    });
    // It may hear of the erasure; that another org has the name by now is not its business.
    let seen = rows.map_or_else(|error| vec![sqlstate(&error)], |rows| labels(&rows));
    assert!(seen.is_empty() || seen == ["42704"] || seen[0] == ERASED, "{seen:?}");
    refused("a cursor of an erased org", fetch(&mut client, "'c'"), &["42704"]);
}
