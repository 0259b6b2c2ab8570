//! Cursors that nobody uses any more go; those in use stay, whether anything happens or not.

use std::thread;

use postgres::Client;
use tailstream_e2e::cursor::{ack, fetch, fetched, labels};
use tailstream_e2e::database::{column, one, set_for_server};
use tailstream_e2e::refused;

use crate::{
    ORDERS, age, create, cursor_table, database, database_with_settings, pid, run, store_placed,
    wait_until_blocked, wait_until_idle,
};

fn rows(client: &mut Client) -> i64 {
    let table = cursor_table(client);
    one(client, &format!("SELECT count(*) FROM {table}"))
}

fn listed(client: &mut Client) -> Vec<String> {
    column(client, "SELECT name FROM tailstream.cursors ORDER BY 1")
}

fn purge(client: &mut Client) {
    client.execute("SELECT * FROM ts_apply_retention()", &[]).expect("the purge");
}

#[test]
fn an_idle_cursor_expires_and_the_purge_removes_it() {
    let database = database("expiring");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 10), ("b", 5)]);
    for name in ["fresh", "idle", "expired", "reused"] {
        create(&mut client, &format!("'{name}', 'acme'"));
    }
    let token = fetched(&mut client, "'expired'")[0].cursor.clone();
    let old_token = fetched(&mut client, "'reused'")[0].cursor.clone();
    age(&mut client, "idle", "6 days 23 hours");
    age(&mut client, "expired", "7 days 1 minute");
    age(&mut client, "reused", "8 days");
    for call in [
        "ts_cursor_fetch('expired')".to_owned(),
        "ts_cursor_fetch('expired', org => 'acme')".to_owned(),
        format!("ts_cursor_ack('expired', '{token}')"),
        "ts_cursor_seek('expired', 'now')".to_owned(),
    ] {
        refused(&call, client.execute(&format!("SELECT * FROM {call}"), &[]), &["42704"]);
    }
    // Its name is free at once, and what comes is a new cursor.
    create(&mut client, "'reused', 'acme', 'now'");
    assert_eq!(fetched(&mut client, "'reused'"), []);
    refused("a token of the expired one", ack(&mut client, "reused", &old_token), &["22023", "55000"]);
    purge(&mut client);
    assert_eq!(listed(&mut client), ["fresh", "idle", "reused"]);
    assert_eq!(rows(&mut client), 3, "an expired cursor is gone from the table");
    assert_eq!(labels(&fetched(&mut client, "'idle'")), ["a", "b"]);
}

/// How far off the end of a cursor is, in hours.
fn hours_left(client: &mut Client, name: &str) -> i64 {
    let sql = format!(
        "SELECT (extract(epoch FROM expires_at - now()) / 3600)::bigint FROM tailstream.cursors WHERE name = '{name}'"
    );
    one(client, &sql)
}

#[test]
fn every_use_keeps_a_cursor_alive_even_if_nothing_comes() {
    let database = database("polled");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 20), ("b", 10)]);
    for order in ORDERS {
        let at_end = format!("end {order}");
        create(&mut client, &format!("'{at_end}', 'acme', 'now', order_by => '{order}'"));
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        let token = fetched(&mut client, &format!("'{order}', 1"))[0].cursor.clone();
        for (name, call) in [
            (&*at_end, format!("ts_cursor_fetch('{at_end}')")),
            (&at_end, format!("ts_cursor_fetch('{at_end}', auto_ack => true)")),
            (&at_end, format!("ts_cursor_fetch('{at_end}', timeout => '1 ms')")),
            (order, format!("ts_cursor_fetch('{order}', 1)")),
            (order, format!("ts_cursor_ack('{order}', '{token}')")),
            (order, format!("ts_cursor_seek('{order}', 'now')")),
        ] {
            age(&mut client, name, "6 days 20 hours");
            assert!((3..=4).contains(&hours_left(&mut client, name)), "{name}");
            client.execute(&format!("SELECT * FROM {call}"), &[]).expect(&call);
            assert!(hours_left(&mut client, name) > 100, "{call} does not count as a use");
        }
    }
}

#[test]
fn the_time_to_live_can_be_changed_and_switched_off() {
    let (_alone, database) = database_with_settings("for_ever");
    let mut client = database.connect();
    create(&mut client, "'c', 'acme'");
    assert_eq!(one::<String>(&mut client, "SHOW tailstream.cursor_ttl"), "7d");
    age(&mut client, "c", "400 days");
    set_for_server(&mut client, "tailstream.cursor_ttl", "0");
    assert_eq!(fetched(&mut client, "'c'"), []);
    age(&mut client, "c", "400 days");
    purge(&mut client);
    let ends = "SELECT count(*) FROM tailstream.cursors WHERE expires_at < 'infinity'";
    assert_eq!((rows(&mut client), one::<i64>(&mut client, ends)), (1, 0), "it never expires");
    set_for_server(&mut client, "tailstream.cursor_ttl", "1h");
    refused("a cursor that expired", fetch(&mut client, "'c'"), &["42704"]);
    create(&mut client, "'d', 'acme'");
    assert!(hours_left(&mut client, "d") <= 1);
    purge(&mut client);
    assert_eq!(listed(&mut client), ["d"]);
    run(&mut client, "ts_cursor_drop('d')");
    set_for_server(&mut client, "tailstream.cursor_ttl", "7d");
}

#[test]
fn a_cursor_in_use_does_not_expire_however_long_that_takes() {
    let database = database("in_use");
    let (mut client, mut consumer) = (database.connect(), database.connect());
    store_placed(&mut client, "acme", &[("a", 20), ("b", 10)]);
    for order in ORDERS {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        consumer.batch_execute("BEGIN").expect("begin");
        let rows = fetched(&mut consumer, &format!("'{order}', 1"));
        // What follows takes longer than the time to live.
        age(&mut client, order, "8 days");
        purge(&mut client);
        assert!(listed(&mut client).contains(&order.to_owned()), "{order}: somebody works on what it gave");
        assert!(ack(&mut consumer, order, &rows[0].cursor).expect("an ack"));
        consumer.batch_execute("COMMIT").expect("commit");
        assert_eq!(labels(&fetched(&mut client, &format!("'{order}', auto_ack => true"))), ["b"]);
    }
}

#[test]
fn a_cursor_at_which_somebody_waits_does_not_expire() {
    let database = database("waited_for");
    let (mut client, mut waiter) = (database.connect(), database.connect());
    run(&mut client, "ts_set_org_tier('acme', 'standard')");
    create(&mut client, "'c', 'acme'");
    let waiting = pid(&mut waiter);
    let rows = thread::scope(|scope| {
        let rows = scope.spawn(move || fetched(&mut waiter, "'c', timeout => '20 s', auto_ack => true"));
        wait_until_idle(&mut client, waiting);
        age(&mut client, "c", "8 days");
        purge(&mut client);
        assert_eq!(listed(&mut client), ["c"]);
        store_placed(&mut client, "acme", &[("a", 0)]);
        rows.join().expect("the fetch that waits")
    });
    assert_eq!(labels(&rows), ["a"]);
    assert_eq!(fetched(&mut client, "'c'"), []);
}

#[test]
fn a_consumer_that_waits_and_waits_does_not_fall_behind() {
    let (_alone, database) = database_with_settings("patient");
    let mut client = database.connect();
    // That it is in use is then written down once a second.
    set_for_server(&mut client, "tailstream.cursor_ttl", "10s");
    create(&mut client, "'c', 'quiet', 'now'");
    let mut heads = Vec::new();
    // The second never ends between two waits.
    for round in 0..9 {
        store_placed(&mut client, "busy", &[("x", 0)]);
        heads.push(one::<i64>(&mut client, "SELECT max(seq) FROM tailstream.positions"));
        assert_eq!(fetched(&mut client, "'c', timeout => '400 ms'"), [], "round {round}");
    }
    let place: i64 = one(&mut client, "SELECT position_id FROM tailstream.cursors");
    assert!(place > heads[2], "it stands at {place}, and the positions came by as {heads:?}");
    store_placed(&mut client, "quiet", &[("a", 0)]);
    assert_eq!(labels(&fetched(&mut client, "'c', timeout => '1 s'")), ["a"]);
    set_for_server(&mut client, "tailstream.cursor_ttl", "7d");
}

#[test]
fn the_purge_removes_any_number_of_expired_cursors_some_at_a_time() {
    let (_alone, database) = database_with_settings("hoarding");
    let mut client = database.connect();
    let sql = "SELECT ts_cursor_create('c' || n, 'acme') FROM generate_series(1, 1100) n";
    assert_eq!(client.execute(sql, &[]).expect("cursors"), 1_100);
    create(&mut client, "'fresh', 'acme'");
    let table = cursor_table(&mut client);
    let sql = format!("UPDATE {table} SET last_active = now() - interval '8 days' WHERE name <> 'fresh'");
    assert_eq!(client.execute(&sql, &[]).expect("older cursors"), 1_100);
    for left in [601, 101, 1, 1] {
        purge(&mut client);
        assert_eq!(rows(&mut client), left);
    }
    assert_eq!(listed(&mut client), ["fresh"]);
    set_for_server(&mut client, "tailstream.max_cursors_per_org", "3");
    create(&mut client, "'second', 'acme'");
    create(&mut client, "'third', 'acme'");
    let one_more = client.execute("SELECT ts_cursor_create('fourth', 'acme')", &[]);
    refused("one cursor more than an org may have", one_more, &["53400"]);
    create(&mut client, "'first', 'other'");
    age(&mut client, "second", "8 days");
    create(&mut client, "'fourth', 'acme'");
    set_for_server(&mut client, "tailstream.max_cursors_per_org", "0");
    create(&mut client, "'fifth', 'acme'");
    set_for_server(&mut client, "tailstream.max_cursors_per_org", "10000");
}

#[test]
fn a_cursor_that_comes_back_to_life_is_not_replaced() {
    let database = database("revived");
    let (mut client, mut holder, mut maker) = (database.connect(), database.connect(), database.connect());
    store_placed(&mut client, "acme", &[("a", 10), ("b", 5)]);
    create(&mut client, "'c', 'acme'");
    holder.batch_execute("BEGIN").expect("begin");
    let token = fetched(&mut holder, "'c', 1")[0].cursor.clone();
    age(&mut client, "c", "8 days");
    let (waiting, holding) = (pid(&mut maker), pid(&mut holder));
    let made = thread::scope(|scope| {
        let made = scope.spawn(move || maker.execute("SELECT ts_cursor_create('c', 'acme')", &[]));
        wait_until_blocked(&mut client, waiting, holding);
        assert!(ack(&mut holder, "c", &token).expect("an acknowledgement"));
        holder.batch_execute("COMMIT").expect("commit");
        made.join().expect("who makes it")
    });
    refused("a cursor of that name", made, &["42710"]);
    assert_eq!(labels(&fetched(&mut client, "'c'")), ["b"]);
}

#[test]
fn creating_at_the_same_time_passes_no_limit() {
    let (_alone, database) = database_with_settings("rush");
    let mut client = database.connect();
    set_for_server(&mut client, "tailstream.max_cursors_per_org", "2");
    create(&mut client, "'first', 'acme'");
    for (end, expected) in [("ROLLBACK", Ok(())), ("COMMIT", Err(()))] {
        run(&mut client, "ts_cursor_drop('first')");
        create(&mut client, "'first', 'acme'");
        let (mut one, mut other) = (database.connect(), database.connect());
        let (holding, waiting) = (pid(&mut one), pid(&mut other));
        one.batch_execute("BEGIN").expect("begin");
        create(&mut one, "'one', 'acme'");
        // Another org's do not wait for it.
        create(&mut client, &format!("'{end}', 'other'"));
        let made = thread::scope(|scope| {
            // A transaction whose snapshot is older sees as little of the first one.
            let made = scope.spawn(move || {
                other
                    .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM tailstream.orgs")
                    .expect("a snapshot");
                other
                    .execute("SELECT ts_cursor_create('other', 'acme')", &[])
                    .and_then(|_| other.batch_execute("COMMIT"))
            });
            wait_until_blocked(&mut client, waiting, holding);
            one.batch_execute(end).expect(end);
            made.join().expect("who makes it")
        });
        match expected {
            Ok(()) => {
                made.expect("a cursor within the limit");
                run(&mut client, "ts_cursor_drop('other', 'acme')");
            }
            Err(()) => drop(refused("one cursor more than an org may have", made, &["53400"])),
        }
    }
    set_for_server(&mut client, "tailstream.max_cursors_per_org", "10000");
}
