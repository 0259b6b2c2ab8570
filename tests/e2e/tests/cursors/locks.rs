//! One session at a time uses a cursor; the others wait, or do not want to.

use std::thread;

use postgres::Client;
use tailstream_e2e::cursor::{fetch, fetched, labels, store};
use tailstream_e2e::{Database, refused};

use crate::{ORDERS, create, database, pid, run, store_placed, wait_until_blocked};

/// What a session gets that has to wait until `end` has ended the transaction which holds the cursor.
fn after_waiting(
    database: &Database,
    holder: &mut Client,
    arguments: &str,
    end: &str,
) -> Result<Vec<String>, postgres::Error> {
    let (mut waiter, mut witness) = (database.connect(), database.connect());
    let (waiting, holding) = (pid(&mut waiter), pid(holder));
    thread::scope(|scope| {
        let rows = scope.spawn(move || fetch(&mut waiter, arguments).map(|rows| labels(&rows)));
        wait_until_blocked(&mut witness, waiting, holding);
        holder.batch_execute(end).expect(end);
        rows.join().expect("the session that waits")
    })
}

fn prepare(name: &str) -> (Database, Client) {
    let database = database(name);
    let mut client = database.connect();
    for order in ORDERS {
        let events = [("a", 60), ("b", 50), ("c", 40), ("d", 30), ("e", 20), ("f", 10)];
        store_placed(&mut client, order, &events);
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
    }
    (database, client)
}

#[test]
fn a_second_session_waits_and_goes_on_behind_the_first_ones_ack() {
    let (database, mut holder) = prepare("waits");
    for order in ORDERS {
        let two = format!("'{order}', 2, auto_ack => true");
        let begin = |holder: &mut Client, arguments: &str| {
            holder.batch_execute("BEGIN").expect("begin");
            labels(&fetched(holder, arguments))
        };
        assert_eq!(begin(&mut holder, &two), ["a", "b"]);
        let got = after_waiting(&database, &mut holder, &two, "COMMIT");
        assert_eq!(got.expect("a fetch"), ["c", "d"], "{order}: behind the ack");
        assert_eq!(begin(&mut holder, &two), ["e", "f"]);
        let got = after_waiting(&database, &mut holder, &two, "ROLLBACK");
        assert_eq!(got.expect("a fetch"), ["e", "f"], "{order}: nothing was acknowledged");
        run(&mut holder, &format!("ts_cursor_seek('{order}', 'beginning')"));
        // Whoever only looks holds it as well.
        assert_eq!(begin(&mut holder, &format!("'{order}', 1")), ["a"]);
        let got = after_waiting(&database, &mut holder, &two, "COMMIT");
        assert_eq!(got.expect("a fetch"), ["a", "b"], "{order}");
        assert_eq!(begin(&mut holder, &two), ["c", "d"]);
        let seek = format!("SELECT ts_cursor_seek('{order}', 'beginning'); COMMIT");
        let got = after_waiting(&database, &mut holder, &two, &seek);
        assert_eq!(got.expect("a fetch"), ["a", "b"], "{order}: from where it was sent");
        begin(&mut holder, &two);
        let drop = format!("SELECT ts_cursor_drop('{order}'); COMMIT");
        refused("a cursor dropped meanwhile", after_waiting(&database, &mut holder, &two, &drop), &["42704"]);
    }
}

#[test]
fn a_waiting_session_may_find_another_cursor_of_that_name() {
    let (database, mut holder) = prepare("renewed");
    holder.batch_execute("BEGIN").expect("begin");
    fetched(&mut holder, "'arrival', 2, auto_ack => true");
    let renew = "SELECT ts_cursor_drop('arrival'), ts_cursor_create('arrival', 'arrival', 'now'); COMMIT";
    match after_waiting(&database, &mut holder, "'arrival', 2, auto_ack => true", renew) {
        Ok(rows) => assert_eq!(rows, [""; 0], "the new one begins now"),
        error => drop(refused("the old one is gone", error, &["42704"])),
    }
    assert_eq!(fetched(&mut holder, "'arrival'"), []);
}

#[test]
fn every_use_of_a_cursor_in_use_waits_or_is_refused_at_once() {
    let (database, mut holder) = prepare("impatient");
    let mut client = database.connect();
    for order in ORDERS {
        let token = fetched(&mut client, &format!("'{order}', 1"))[0].cursor.clone();
        holder.batch_execute("BEGIN").expect("begin");
        let held = fetched(&mut holder, &format!("'{order}', 2, auto_ack => true"));
        client.batch_execute("SET lock_timeout = '20ms'").expect("lock_timeout");
        for call in [
            format!("ts_cursor_fetch('{order}')"),
            format!("ts_cursor_fetch('{order}', timeout => '10 s')"),
            format!("ts_cursor_ack('{order}', '{token}')"),
            format!("ts_cursor_seek('{order}', 'now')"),
            format!("ts_cursor_seek('{order}', now())"),
            format!("ts_cursor_drop('{order}')"),
        ] {
            refused(&call, client.execute(&format!("SELECT * FROM {call}"), &[]), &["55P03"]);
        }
        client.batch_execute("RESET lock_timeout").expect("lock_timeout");
        for options in
            ["nowait => true", "nowait => true, timeout => '10 s'", "nowait => true, auto_ack => true"]
        {
            refused(options, fetch(&mut client, &format!("'{order}', {options}")), &["55P03"]);
        }
        assert_eq!(labels(&held), ["a", "b"]);
        holder.batch_execute("COMMIT").expect("commit");
        let next = fetched(&mut client, &format!("'{order}', 1, nowait => true"));
        assert_eq!(labels(&next), ["c"], "{order}: none of it moved the cursor");
    }
}

#[test]
fn a_cursor_in_use_is_in_nobody_elses_way() {
    let (database, mut holder) = prepare("bystanders");
    let mut client = database.connect();
    create(&mut client, "'second', 'arrival'");
    create(&mut client, "'arrival', 'event_time'");
    holder.batch_execute("BEGIN").expect("begin");
    assert_eq!(fetched(&mut holder, "'arrival', org => 'arrival', auto_ack => true").len(), 6);
    // What waited would fail.
    client.batch_execute("SET lock_timeout = '20ms'").expect("lock_timeout");
    assert_eq!(fetched(&mut client, "'second', auto_ack => true").len(), 6, "another cursor of the org");
    assert_eq!(
        fetched(&mut client, "'arrival', org => 'event_time', auto_ack => true").len(),
        6,
        "of its name"
    );
    store_placed(&mut client, "arrival", &[("g", 0)]);
    run(&mut client, "ts_cursor_create('third', 'arrival')");
    run(&mut client, "ts_cursor_drop('third')");
    client.execute("SELECT * FROM tailstream.cursors", &[]).expect("the view");
    client.execute("SELECT * FROM ts_apply_retention()", &[]).expect("the purge");
    store(&mut holder, "arrival", &[("by itself", 0)]);
    holder.batch_execute("COMMIT").expect("commit");
}
