//! The contents of an entry, and the order of entries.

use std::thread;
use std::time::Duration;

use serde_json::value::RawValue;
use tailstream_devkit::event::{now_micros, rfc3339};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::check_positions;
use tailstream_e2e::{Random, document};

use crate::{database, sides};

/// An entry as Redis returns it: its id, and the names and values of its fields.
type Raw = (String, Vec<String>);

#[test]
fn an_entry_is_the_event_as_ts_event_gives_it() {
    let mut random = Random::new("mirror documents");
    let (_database, mut sides) = database("documents");
    for _ in 0..12 {
        let events: Vec<String> = (0..random.between(1, 40))
            .map(|_| {
                let age = random.between(0, 3_000_000);
                document::event(&mut random, now_micros() - age)
            })
            .collect();
        let json = format!("[{}]", events.join(","));
        // Some generated events are refused. The others are mirrored.
        let _ =
            sides.client.execute("SELECT ts_ingest('acme', $1::text::json, NULL, 'quarantine')", &[&json]);
    }
    let fixed = r#"[{"created_at":"2026-01-01T00:00:00Z"},
                    {"path":"/ü","status":404,"rt":1.5,"ip":"10.0.0.1","note":{"deep":[1.50,null,"x"]}}]"#;
    let batch = ingest(
        &mut sides.client,
        "acme",
        &fixed.replace("2026-01-01T00:00:00Z", &rfc3339(now_micros())),
        None,
    )
    .expect("ingest")
    .batch_id;
    sides.settle(&["acme"]);
    let stream = sides.stream("acme");
    assert!(stream.len() > 20);
    let last = stream.last().expect("an entry");
    assert_eq!(last.event_id, batch << 16 | 1);
    let data: serde_json::Value = serde_json::from_str(&last.data).expect("JSON");
    assert_eq!((&data["path"], &data["status"]), (&"/ü".into(), &404.into()));
    assert!(last.data.contains("[1.50,null,") || last.data.contains("[1.50, null,"), "{}", last.data);
    for entry in &stream {
        let data: Box<RawValue> = serde_json::from_str(&entry.data).expect("one JSON value");
        assert_eq!(data.get().len(), entry.data.len());
        assert_eq!((entry.time.len(), entry.time.ends_with('Z')), (27, true), "{entry:?}");
        let same = "SELECT ($1::text::json ->> 'created_at')::timestamptz = $2::text::timestamptz";
        let row = sides.client.query_one(same, &[&entry.data, &entry.time]).expect("times");
        assert!(row.get::<_, bool>(0), "{entry:?}");
    }
}

#[test]
fn each_org_has_its_own_stream_in_commit_order() {
    let (database, mut sides) = database("orgs");
    let orgs = ["acme", "o'brien", "{curly}", "a:b c", "ünïcödé", "{database}"];
    thread::scope(|scope| {
        for writer in 0..4 {
            let database = &database;
            scope.spawn(move || {
                let mut client = database.connect();
                for round in 0..60 {
                    let org = orgs[(writer + round) % orgs.len()];
                    let mut transaction = client.transaction().expect("a transaction");
                    ingest(&mut transaction, org, &some_events(1 + round % 7), None).expect("ingest");
                    if round % 5 == 0 {
                        ingest(&mut transaction, orgs[0], &some_events(2), None).expect("ingest");
                    }
                    if round % 11 == 0 {
                        transaction.rollback().expect("rollback");
                    } else {
                        transaction.commit().expect("commit");
                    }
                }
            });
        }
    });
    sides.settle(&orgs);
    check_positions(&mut sides.client);
    let total: usize = orgs.iter().map(|org| sides.length(org)).sum();
    let events = "SELECT count(*) FROM tailstream.events WHERE org_id <> 'chunks'";
    assert_eq!(total as i64, one::<i64>(&mut sides.client, events));
}

#[test]
fn two_databases_have_separate_streams() {
    let ((_a, mut first), (_b, mut second)) = (database("twin_a"), database("twin_b"));
    first.ingest("acme", 3);
    second.ingest("acme", 5);
    first.settle(&["acme"]);
    second.settle(&["acme"]);
    assert_eq!((first.length("acme"), second.length("acme")), (3, 5));
    assert_eq!(first.key("acme"), "m:twin_a:{acme}");
}

#[test]
fn a_call_with_seventy_thousand_events_is_mirrored_completely() {
    let (_database, mut sides) = database("large");
    sides
        .client
        .batch_execute(
            "SELECT ts_create_tier('large', '1 hour', 100000); SELECT ts_set_org_tier('big', 'large')",
        )
        .expect("a tier");
    sides.ingest("small", 2);
    let sql = "SELECT accepted FROM ts_ingest('big', (SELECT json_agg(json_build_object('path', '/' || n)) FROM generate_series(1, 70000) n))";
    assert_eq!(one::<i32>(&mut sides.client, sql), 70_000);
    sides.ingest("small", 2);
    sides.settle(&["big", "small"]);
    assert_eq!(sides.length("big"), 70_000);
    assert_eq!(
        sides.stream("big")[69_999].data,
        column::<String>(
            &mut sides.client,
            "SELECT ts_event(e)::text FROM tailstream.events e WHERE path = '/70000'"
        )[0]
    );
}

#[test]
fn a_blocked_viewer_receives_events_after_their_commit() {
    let (database, mut view) = database("blocked");
    let mut writer = database.connect();
    let mut sides = sides(&database);
    let key = view.key("acme");
    view.ingest("acme", 1);
    view.settle(&["acme"]);
    let first = view.stream("acme")[0].id;
    let after = format!("{}-{}", first.0, first.1);
    thread::scope(|scope| {
        let viewer = scope.spawn(|| -> Vec<(String, Vec<Raw>)> {
            let mut xread = redis::cmd("XREAD");
            xread.arg("BLOCK").arg(20_000).arg("STREAMS").arg(&key).arg(&after);
            let reply: Option<_> = xread.query(&mut view.redis).expect("XREAD");
            reply.expect("an entry within the time")
        });
        tailstream_e2e::eventually("the viewer to wait", Duration::from_secs(10), || {
            let clients: String =
                redis::cmd("CLIENT").arg("LIST").query(&mut sides.redis).expect("CLIENT LIST");
            clients
                .lines()
                .any(|client| client.contains("cmd=xread") && client.contains(" flags=b"))
                .then_some(())
        });
        let mut open = writer.transaction().expect("a transaction");
        let undone = ingest(&mut open, "acme", &some_events(2), None).expect("ingest").batch_id;
        // Other events are sent in the meantime.
        sides.ingest("other", 1);
        sides.settle(&["other", "acme"]);
        assert_eq!(sides.length("acme"), 1, "what is not committed is not there");
        open.rollback().expect("rollback");
        let batch = sides.ingest("acme", 2);
        let reply = viewer.join().expect("the viewer");
        let (_, fields) = &reply[0].1[0];
        let id: i64 = fields[1].parse().expect("the id of an event");
        assert_eq!(id >> 16, batch);
        assert_ne!(id >> 16, undone);
    });
}

#[test]
fn entries_are_in_commit_order_and_not_in_the_order_of_event_ids() {
    let (database, mut sides) = database("commits");
    let mut late = database.connect();
    // The org is registered first, so that no transaction waits for its registration.
    let zeroth = sides.ingest("acme", 1);
    let mut open = late.transaction().expect("a transaction");
    let first = ingest(&mut open, "acme", &some_events(2), None).expect("ingest").batch_id;
    let second = sides.ingest("acme", 2);
    sides.settle(&["acme"]);
    open.commit().expect("commit");
    let third = sides.ingest("acme", 1);
    sides.settle(&["acme"]);
    let batches: Vec<i64> = sides.stream("acme").iter().map(|entry| entry.event_id >> 16).collect();
    assert_eq!(batches, [zeroth, second, second, first, first, third]);
}
