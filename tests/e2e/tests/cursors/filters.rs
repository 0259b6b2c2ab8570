//! Filters: what they mean in SQL, for pages and for cursors of both orders.

use std::collections::BTreeSet;

use postgres::Client;
use tailstream_e2e::cursor::{Fetched, arrival_order, fetched, ids, page};
use tailstream_e2e::database::{column, ingest};
use tailstream_e2e::positions::{soon_placed, wait_until_all_placed};
use tailstream_e2e::{Random, refused};

use crate::{LONG, ORDERS, create, database, store_placed};

/// A member of a filter and the condition that it stands for.
const CONDITIONS: &[(&str, &str)] = &[
    (r#""status": 404"#, "status = 404"),
    (r#""status": "5xx""#, "status BETWEEN 500 AND 599"),
    (r#""status": [404, "2xx"]"#, "status = 404 OR status BETWEEN 200 AND 299"),
    (r#""status": 777"#, "status = 777"),
    (r#""method": "GET""#, "method = 'GET'"),
    (r#""method": ["POST", "PUT"]"#, "method IN ('POST', 'PUT')"),
    (r#""method": "get""#, "method = 'get'"),
    (r#""host": "web-1""#, "host = 'web-1'"),
    (r#""host": ["web-1", "o'brien"]"#, "host IN ('web-1', 'o''brien')"),
    (r#""path": "/api/""#, "starts_with(path, '/api/')"),
    (r#""path": ["/a_i", "/w%"]"#, "starts_with(path, '/a_i') OR starts_with(path, '/w%')"),
    (r#""path": """#, "true"),
    (r#""path": "/\\""#, r"starts_with(path, '/\')"),
    (r#""metadata": {"k": 1}"#, r#"metadata @> '{"k": 1}'"#),
    (r#""metadata": {"nested": {"deep": [2]}}"#, r#"metadata @> '{"nested": {"deep": [2]}}'"#),
    (r#""metadata": {}"#, "metadata IS NOT NULL"),
];

const EVENTS: usize = 3_000;

fn store_random(client: &mut Client, random: &mut Random) {
    for _ in 0..30 {
        let events: Vec<String> = (0..EVENTS / 30).map(|_| some_event(random)).collect();
        ingest(client, "acme", &format!("[{}]", events.join(",")), None).expect("ingest");
        ingest(client, "other", &some_event(random), None).expect("ingest");
    }
    wait_until_all_placed(client, LONG);
}

fn some_event(random: &mut Random) -> String {
    let time = tailstream_devkit::event::now_micros() - random.between(0, 5_000_000_000);
    let status = random.pick(&["200", "204", "301", "404", "500", "503", "599", "600", "5"]);
    let method = random.pick(&["GET", "POST", "PUT", "get"]);
    let host = random.pick(&["\"web-1\"", "\"web-10\"", "\"o'brien\"", "null", "\"\""]);
    let path = random.pick(&["/api/x", "/api", "/a_i/x", "/api%", "/w%b", "/wb", "", "/\\\\x"]);
    let more = random.pick(&[
        "",
        r#","k":1"#,
        r#","k":"1""#,
        r#","k":1,"nested":{"deep":[1,2]}"#,
        r#","nested":{"deep":2}"#,
    ]);
    let time = tailstream_devkit::event::rfc3339(time);
    format!(
        r#"{{"created_at":"{time}","status":{status},"method":"{method}","host":{host},"path":"{path}"{more}}}"#
    )
}

/// Members that may stand together, and their conditions together.
fn some_filter(random: &mut Random) -> (String, String) {
    let mut members = BTreeSet::new();
    for _ in 0..=random.below(3) {
        members.insert(random.below(CONDITIONS.len()));
    }
    let mut kinds = BTreeSet::new();
    members.retain(|member| kinds.insert(CONDITIONS[*member].0.split(':').next()));
    let list = |part: fn(&(&str, &str)) -> String, between: &str| {
        let parts: Vec<String> = members.iter().map(|member| part(&CONDITIONS[*member])).collect();
        parts.join(between)
    };
    let filter = list(|(member, _)| (*member).to_owned(), ", ");
    (format!("{{{filter}}}"), list(|(_, condition)| format!("({condition})"), " AND "))
}

/// Everything that a cursor has, fetched in parts.
fn all_of(client: &mut Client, name: &str, part: usize) -> Vec<i64> {
    let mut all = Vec::new();
    loop {
        let rows = fetched(client, &format!("'{name}', {part}, auto_ack => true"));
        assert!(rows.iter().all(|row: &Fetched| row.gap.is_none()), "{name}: a gap");
        assert!(rows.len() <= part, "{name}: {} rows instead of {part}", rows.len());
        all.extend(ids(&rows));
        if rows.len() < part {
            return all;
        }
    }
}

#[test]
fn filters_mean_the_same_for_pages_and_both_orders() {
    let mut random = Random::new("cursor filters");
    let database = database("filtered");
    let mut client = database.connect();
    store_random(&mut client, &mut random);
    let arrived = arrival_order(&mut client, "acme");
    let mut filters: Vec<(String, String)> = CONDITIONS
        .iter()
        .map(|(member, condition)| (format!("{{{member}}}"), (*condition).to_owned()))
        .collect();
    filters.extend((0..20).map(|_| some_filter(&mut random)));
    filters.push(("{}".to_owned(), "true".to_owned()));
    for (filter, condition) in filters {
        let filter = filter.replace('\'', "''");
        let sql = format!(
            "SELECT id FROM tailstream.events WHERE org_id = 'acme' AND ({condition}) ORDER BY created_at, id"
        );
        let by_time: Vec<i64> = column(&mut client, &sql);
        let matching: BTreeSet<i64> = by_time.iter().copied().collect();
        let by_arrival: Vec<i64> = arrived.iter().copied().filter(|id| matching.contains(id)).collect();
        let part = [1 + by_time.len() / 3, 7, 5_000][random.below(3)];
        for (order, expected) in ORDERS.iter().zip([&by_arrival, &by_time]) {
            create(&mut client, &format!("'c', 'acme', filter => '{filter}', order_by => '{order}'"));
            assert_eq!(&all_of(&mut client, "c", part), expected, "{filter} by {order}");
            client.batch_execute("SELECT ts_cursor_drop('c')").expect("a drop");
        }
        let paged =
            page(&mut client, &format!("'acme', NULL, NULL, page_size => 5000, filter => '{filter}'"));
        assert_eq!(ids(&paged), by_time, "{filter} in pages");
    }
}

#[test]
fn a_filter_stays_with_its_cursor_and_passes_what_it_hides() {
    let database = database("passed");
    let mut client = database.connect();
    let events = |status: usize, count: usize| {
        format!("[{}]", vec![format!(r#"{{"status":{status},"path":"/{status}"}}"#); count].join(","))
    };
    create(&mut client, r#"'c', 'acme', filter => '{"status": "5xx"}'"#);
    let mut send = |status: usize, count: usize| {
        let batch = ingest(&mut client, "acme", &events(status, count), None).expect("ingest").batch_id;
        soon_placed(&mut client, batch);
    };
    send(200, 5_000);
    send(503, 1);
    send(200, 5_000);
    send(500, 2);
    let seen = fetched(&mut client, "'c', 2, auto_ack => true");
    assert_eq!(tailstream_e2e::cursor::labels(&seen), ["/503", "/500"]);
    assert_eq!(fetched(&mut client, "'c', 2, auto_ack => true").len(), 1, "from within a batch");
    assert_eq!(fetched(&mut client, "'c', 2, auto_ack => true"), []);
    // A seek changes the position and not the filter.
    client.batch_execute("SELECT ts_cursor_seek('c', 'beginning')").expect("a seek");
    assert_eq!(fetched(&mut client, "'c'").len(), 3);
    store_placed(&mut client, "acme", &[("ordinary", 0)]);
    assert_eq!(fetched(&mut client, "'c'").len(), 3);
    let unlike = r#"SELECT ts_cursor_create('x', 'acme', filter => '{"metadata": {"a": 1}, "size": 1}')"#;
    refused("an unknown member", client.execute(unlike, &[]), &["22023"]);
}
