//! A fetch that waits for events: it hears of them at once, and of nothing else.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use tailstream_e2e::cursor::{Fetched, fetch, fetched, ids, labels, store};
use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::{Database, Random, refused};

use crate::{OLD, ORDERS, create, database, pid, run, shorten, store_placed, wait_until_idle};

/// Nothing is that late on a busy machine that was woken, and what was not is later.
const WOKEN: Duration = Duration::from_secs(5);

/// Fetches in a session of its own, has `then` done while it waits, and returns what it got and when.
fn while_waiting(
    database: &Database,
    arguments: &str,
    then: impl FnOnce(&mut Client, i32),
) -> (Vec<Fetched>, Instant) {
    let (mut waiter, mut client) = (database.connect(), database.connect());
    let waiting = pid(&mut waiter);
    thread::scope(|scope| {
        let rows = scope.spawn(move || (fetched(&mut waiter, arguments), Instant::now()));
        wait_until_idle(&mut client, waiting);
        then(&mut client, waiting);
        rows.join().expect("the fetch that waits")
    })
}

#[test]
fn a_waiting_fetch_gets_what_is_committed_meanwhile_at_once() {
    let database = database("waiting");
    let mut client = database.connect();
    for order in ORDERS {
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
        let mut delays = Vec::new();
        for round in 0..7 {
            let mut committed = Instant::now();
            let call = format!("'{order}', timeout => '20 s', auto_ack => true");
            let (rows, returned) = while_waiting(&database, &call, |client, _| {
                let mut transaction = client.transaction().expect("a transaction");
                store(&mut transaction, order, &[(&format!("a {round}"), 0), (&format!("b {round}"), 0)]);
                transaction.commit().expect("commit");
                committed = Instant::now();
            });
            assert_eq!(labels(&rows), [format!("a {round}"), format!("b {round}")], "{order}");
            delays.push(returned.saturating_duration_since(committed));
        }
        // Without being woken the sequencer looks once a second, and half of the rounds took longer than half of that.
        delays.sort_unstable();
        println!("{order}: {delays:?}");
        assert!(delays[delays.len() / 2] < Duration::from_millis(300), "{order}: {delays:?}");
    }
}

#[test]
fn a_waiting_fetch_never_misses_its_events() {
    let mut random = Random::new("waiting fetch");
    let database = database("unmissed");
    let (mut client, mut writer) = (database.connect(), database.connect());
    create(&mut client, "'c', 'acme'");
    let events = some_events(1);
    for round in 0..150 {
        let pause = Duration::from_micros(random.between(0, 3_000) as u64);
        let began = Instant::now();
        let rows = thread::scope(|scope| {
            scope.spawn(|| {
                // Not a synchronisation: it shall come at any moment before, at and after the beginning of the wait.
                thread::sleep(pause);
                ingest(&mut writer, "acme", &events, None).expect("ingest");
            });
            fetched(&mut client, "'c', timeout => '30 s', auto_ack => true")
        });
        assert_eq!(rows.len(), 1, "round {round}");
        assert!(began.elapsed() < WOKEN, "round {round} took {:?}", began.elapsed());
    }
}

#[test]
fn nothing_comes_of_other_orgs_or_of_what_is_rolled_back() {
    let database = database("other_orgs");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("there", 60)]);
    for order in ORDERS {
        create(&mut client, &format!("'{order}', 'acme', 'now', order_by => '{order}'"));
    }
    for order in ORDERS {
        let call = format!("'{order}', timeout => '20 s', auto_ack => true");
        fetched(&mut client, &call.replace("20 s", "1 ms"));
        let (rows, _) = while_waiting(&database, &call, |client, waiting| {
            for _ in 0..20 {
                store_placed(client, "other", &[("not for it", 0)]);
                let mut transaction = client.transaction().expect("a transaction");
                store(&mut transaction, "acme", &[("never", 0)]);
                transaction.rollback().expect("rollback");
            }
            wait_until_idle(client, waiting);
            store_placed(client, "acme", &[(order, 0)]);
        });
        assert_eq!(labels(&rows), [order]);
        assert_eq!(rows[0].org, "acme");
    }
}

#[test]
fn a_filter_holds_while_it_waits() {
    let database = database("filter_wait");
    let mut client = database.connect();
    for order in ORDERS {
        create(&mut client, &format!(r#"'{order}', 'acme', 'now', '{{"status": "5xx"}}', '{order}'"#));
    }
    for order in ORDERS {
        let call = format!("'{order}', timeout => '20 s', auto_ack => true");
        fetched(&mut client, &call.replace("20 s", "1 ms"));
        let (rows, _) = while_waiting(&database, &call, |client, waiting| {
            let json = format!("[{}]", vec![r#"{"status":200,"path":"/no"}"#; 400].join(","));
            for _ in 0..25 {
                let batch = ingest(client, "acme", &json, None).expect("ingest").batch_id;
                soon_placed(client, batch);
            }
            wait_until_idle(client, waiting);
            let json = format!(r#"[{{"status":404}},{{"status":503,"path":"/{order}"}},{{"status":200}}]"#);
            ingest(client, "acme", &json, None).expect("ingest");
        });
        assert_eq!(labels(&rows), [format!("/{order}")]);
        assert_eq!(fetched(&mut client, &format!("'{order}'")), []);
    }
}

#[test]
fn many_wait_at_once_and_each_gets_its_own() {
    const WAITERS: usize = 24;
    let database = database("crowd");
    let mut client = database.connect();
    let org = |number: usize| format!("org-{number}");
    for number in 0..WAITERS {
        let order = ORDERS[number % 2];
        create(&mut client, &format!("'c', '{}', 'now', order_by => '{order}'", org(number)));
    }
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..WAITERS)
            .map(|number| {
                let mut waiter = database.connect();
                let waiting = pid(&mut waiter);
                let call = format!("'c', timeout => '40 s', org => '{}', auto_ack => true", org(number));
                (waiting, scope.spawn(move || labels(&fetched(&mut waiter, &call))))
            })
            .collect();
        for (waiting, _) in &waiters {
            wait_until_idle(&mut client, *waiting);
        }
        let began = Instant::now();
        for number in (0..WAITERS).rev() {
            store(&mut client, &org(number), &[(&org(number), 0)]);
        }
        for (number, (_, waiter)) in waiters.into_iter().enumerate() {
            assert_eq!(waiter.join().expect("a waiter"), [org(number)]);
        }
        assert!(began.elapsed() < WOKEN, "it took {:?} for all of them", began.elapsed());
    });
    assert_eq!(one::<i64>(&mut client, "SELECT sum(lag_events)::bigint FROM tailstream.cursors"), 0);
}

#[test]
fn a_waiting_fetch_holds_its_cursor_and_nothing_else() {
    let database = database("purged_wait");
    let mut client = database.connect();
    for order in ORDERS {
        store_placed(&mut client, order, &[("old", OLD), ("new", 60)]);
        create(&mut client, &format!("'{order}', '{order}', order_by => '{order}'"));
        // The purge for the other order may be told as a gap.
        assert_eq!(ids(&fetched(&mut client, &format!("'{order}', auto_ack => true"))).len(), 2);
        let call = format!("'{order}', timeout => '25 s', auto_ack => true");
        let (rows, _) = while_waiting(&database, &call, |client, waiting| {
            let taken = fetch(client, &format!("'{order}', nowait => true"));
            refused("a cursor at which somebody waits", taken, &["55P03"]);
            client.batch_execute("SET lock_timeout = '1 s'").expect("lock_timeout");
            shorten(client);
            wait_until_idle(client, waiting);
            for change in
                ["ts_create_tier('t', '1 day')", "ts_drop_tier('t')", "ts_alter_tier('standard', '3 hours')"]
            {
                run(client, change);
            }
            store_placed(client, order, &[("next", 0), ("late", OLD)]);
        });
        assert_eq!(labels(&rows)[0], "next", "{order}");
    }
}
