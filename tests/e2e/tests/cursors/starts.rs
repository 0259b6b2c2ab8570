//! Where a cursor begins: the same forms for a new one and for a seek.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use tailstream_e2e::cursor::{arrival_order, fetched, ids, labels, page, store};
use tailstream_e2e::database::{column, one};
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::{Random, budget, refused};

use crate::{create, database, run, store_placed};

/// What a cursor shows that begins there, made there or sent there.
#[track_caller]
fn shown_from(client: &mut Client, order: &str, start: &str) -> Vec<i64> {
    create(client, &format!("'made', 'acme', start => {start}, order_by => '{order}'"));
    create(client, &format!("'sent', 'acme', order_by => '{order}'"));
    fetched(client, "'sent', 1, auto_ack => true");
    run(client, &format!("ts_cursor_seek('sent', start => {start})"));
    let made = fetched(client, "'made'");
    assert!(made.iter().all(|row| row.gap.is_none()), "{start}: {:?}", labels(&made));
    assert_eq!(ids(&made), ids(&fetched(client, "'sent'")), "{start}: made against sent");
    client.batch_execute("SELECT ts_cursor_drop('made'), ts_cursor_drop('sent')").expect("a drop");
    ids(&made)
}

/// Events of acme that meet a condition, `p` is their position and `e` the event.
fn events_where(client: &mut Client, condition: &str, order: &str) -> Vec<i64> {
    let sql = format!(
        "SELECT e.id FROM tailstream.positions p JOIN tailstream.events e ON e.id >> 16 = p.batch_id
         WHERE p.org_id = 'acme' AND {condition} ORDER BY {order}"
    );
    column(client, &sql)
}

#[test]
fn an_arrival_cursor_begins_at_every_kind_of_start() {
    let database = database("started");
    let mut client = database.connect();
    let mut times = Vec::new();
    for events in [&[("a", 10)][..], &[("b", 3_000), ("c", 5)], &[("d", 40)], &[("e", 2), ("f", 1), ("g", 0)]]
    {
        let batch = store_placed(&mut client, "acme", events);
        let placed = format!("SELECT placed_at::text FROM tailstream.positions WHERE batch_id = {batch}");
        times.push(one::<String>(&mut client, &placed));
    }
    let all = arrival_order(&mut client, "acme");
    assert_eq!(shown_from(&mut client, "arrival", "'beginning'"), all);
    assert_eq!(shown_from(&mut client, "arrival", "'now'"), [0; 0]);
    for time in &times {
        for moved in
            ["", " - interval '1 microsecond'", " + interval '1 microsecond'", " - interval '1 hour'"]
        {
            let time = format!("timestamptz '{time}'{moved}");
            let expected = events_where(&mut client, &format!("p.placed_at >= {time}"), "p.seq, e.id");
            assert_eq!(shown_from(&mut client, "arrival", &time), expected, "{time}");
            assert_eq!(
                shown_from(&mut client, "arrival", &format!("({time})::text")),
                expected,
                "{time} in text"
            );
        }
    }
    assert_eq!(events_where(&mut client, &format!("p.placed_at >= timestamptz '{}'", times[0]), "1"), all);
    create(&mut client, "'tokens', 'acme'");
    for (passed, row) in fetched(&mut client, "'tokens'").iter().enumerate() {
        let behind = shown_from(&mut client, "arrival", &format!("'{}'", row.cursor));
        assert_eq!(behind, all[passed + 1..], "behind {}", row.label());
    }
}

#[test]
fn a_replay_that_went_over_into_the_stream_goes_on_as_a_cursor() {
    let database = database("live");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 10), ("b", 3_000)]);
    store_placed(&mut client, "acme", &[("c", 60), ("d", 5)]);
    let stream_id =
        "SELECT (extract(epoch FROM placed_at) * 1000)::bigint || '-' || stream_seq FROM tailstream.positions
                     WHERE org_id = 'acme' ORDER BY seq LIMIT 1";
    let first: String = one(&mut client, stream_id);
    let live = |client: &mut Client, arguments: &str| -> String {
        one(client, &format!("SELECT cursor FROM ts_replay_live('acme', {arguments})"))
    };
    let opened = [
        live(&mut client, "now() - interval '2 hours'"),
        live(&mut client, &format!("resume_after => '{first}'")),
    ];
    store_placed(&mut client, "acme", &[("e", 1), ("f", 6_000)]);
    let histories = [&["b", "c", "a", "d"][..], &["b", "c", "d"]];
    for (by_arrival, (token, history)) in opened.iter().zip(histories).enumerate() {
        let mut token = token.clone();
        for seen in 0..=history.len() {
            // History by time goes over at the boundary; history by arrival is what a cursor has as well.
            let behind = if by_arrival == 1 { &history[seen..] } else { &[] };
            let expected = [behind, &["e", "f"]].concat();
            assert_eq!(labels_from(&mut client, &token), expected, "after {seen} of {history:?}");
            let rows = page(&mut client, &format!("'acme', NULL, NULL, after => '{token}', page_size => 1"));
            assert_eq!(labels(&rows), history[seen..].iter().take(1).copied().collect::<Vec<_>>());
            if let Some(row) = rows.first() {
                token = row.cursor.clone();
            }
        }
    }
}

/// The paths that an arrival cursor shows which begins at a token.
#[track_caller]
fn labels_from(client: &mut Client, token: &str) -> Vec<String> {
    let ids = shown_from(client, "arrival", &format!("'{token}'"));
    let path = |id: &i64| {
        one(client, &format!("SELECT path FROM tailstream.events WHERE org_id = 'acme' AND id = {id}"))
    };
    ids.iter().map(path).collect()
}

#[test]
fn an_event_time_cursor_begins_at_every_kind_of_start() {
    let database = database("timed");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("b", 50), ("d", 30), ("d", 30)]);
    store_placed(&mut client, "acme", &[("a", 3_000), ("c", 40), ("e", 20)]);
    let all = events_where(&mut client, "true", "e.created_at, e.id");
    let times: Vec<String> = column(
        &mut client,
        "SELECT created_at::text FROM tailstream.events WHERE org_id = 'acme' ORDER BY created_at, id",
    );
    assert_eq!(shown_from(&mut client, "event_time", "'beginning'"), all);
    assert_eq!(shown_from(&mut client, "event_time", "'now'"), [0; 0]);
    for time in &times {
        for moved in ["", " + interval '1 microsecond'", " - interval '1 microsecond'"] {
            let time = format!("timestamptz '{time}'{moved}");
            let expected =
                events_where(&mut client, &format!("e.created_at >= {time}"), "e.created_at, e.id");
            assert_eq!(shown_from(&mut client, "event_time", &time), expected, "{time}");
            assert_eq!(shown_from(&mut client, "event_time", &format!("({time})::text")), expected, "{time}");
        }
    }
    let paged = page(&mut client, "'acme', NULL, NULL");
    let scheduled: Vec<String> = column(
        &mut client,
        "SELECT cursor FROM ts_replay_schedule('acme', now() - interval '1 hour', now())",
    );
    assert_eq!(scheduled.len(), all.len());
    for (passed, row) in paged.iter().enumerate() {
        for token in [&row.cursor, &scheduled[passed]] {
            let behind = shown_from(&mut client, "event_time", &format!("'{token}'"));
            assert_eq!(behind, all[passed + 1..], "behind {}", row.label());
        }
    }
}

#[test]
fn now_by_event_time_is_a_moment_and_tokens_keep_to_their_order() {
    let database = database("moments");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 50), ("b", 20)]);
    let paged = page(&mut client, "'acme', NULL, NULL");
    create(&mut client, "'now', 'acme', 'now', order_by => 'event_time'");
    store_placed(&mut client, "acme", &[("late", 15), ("ahead", -60)]);
    assert_eq!(labels(&fetched(&mut client, "'now'")), ["ahead"], "by its time and not by its arrival");
    let arrival = "'arrival', 'acme'";
    create(&mut client, arrival);
    let arrived = fetched(&mut client, "'arrival'")[0].cursor.clone();
    let backward = page(&mut client, "'acme', NULL, NULL, direction => 'backward'")[0].cursor.clone();
    for (order, token) in [
        ("event_time", &arrived),
        ("event_time", &backward),
        ("arrival", &backward),
        ("arrival", &paged[0].cursor),
    ] {
        let sql = format!("SELECT ts_cursor_create('x', 'acme', '{token}', order_by => '{order}')");
        refused(&sql, client.execute(&sql, &[]), &["22023"]);
    }
    let theirs = format!("SELECT ts_cursor_create('x', 'other', '{arrived}')");
    refused("a start in another org", client.execute(&theirs, &[]), &["42501"]);
}

#[test]
fn what_is_under_way_comes_after_now() {
    let database = database("in_flight");
    let (mut client, mut writer) = (database.connect(), database.connect());
    let before = store_placed(&mut client, "acme", &[("before", 0)]);
    let mut open = writer.transaction().expect("a transaction");
    let under_way = store(&mut open, "acme", &[("under way", 0), ("old", 3_000)]);
    create(&mut client, "'c', 'acme', 'now'");
    create(&mut client, "'sent', 'acme'");
    run(&mut client, "ts_cursor_seek('sent', 'now')");
    open.commit().expect("commit");
    assert!(soon_placed(&mut client, under_way) > soon_placed(&mut client, before));
    for name in ["c", "sent"] {
        assert_eq!(labels(&fetched(&mut client, &format!("'{name}'"))), ["under way", "old"]);
    }
}

#[test]
fn a_cursor_that_is_made_while_the_first_batch_gets_its_position_shows_it() {
    let database = database("first_batches");
    let mut random = Random::new("first batches");
    let (mut writer, mut client) = (database.connect(), database.connect());
    let until = Instant::now() + budget(4.0);
    let mut round = 0;
    while Instant::now() < until {
        let org = format!("org {round}");
        let pause = Duration::from_micros(random.below(5_000) as u64);
        let batch = thread::scope(|scope| {
            let batch = scope.spawn(|| store(&mut writer, &org, &[("first", 0)]));
            // Not a synchronisation: it shall come at any moment.
            thread::sleep(pause);
            create(&mut client, &format!("'cursor', '{org}'"));
            batch.join().expect("the writer")
        });
        soon_placed(&mut client, batch);
        let rows = fetched(&mut client, &format!("'cursor', org => '{org}'"));
        assert_eq!(labels(&rows), ["first"], "round {round}, made after {pause:?}");
        round += 1;
    }
}
