//! Arguments of `ts_replay_page` that are refused, and those that only look odd.

use tailstream_devkit::event::now_micros;
use tailstream_e2e::refused;

use crate::HOUR;
use crate::page::{Direction, Request, places};

const WRONG: &[(&str, &[&str])] = &[
    ("NULL, NULL, NULL", &["22004"]),
    ("'', NULL, NULL", &["22023"]),
    ("repeat('x', 256), NULL, NULL", &["22023"]),
    ("'acme', NULL, NULL, page_size => 0", &["22023"]),
    ("'acme', NULL, NULL, page_size => -1", &["22023"]),
    ("'acme', NULL, NULL, page_size => 100001", &["22023"]),
    ("'acme', NULL, NULL, page_size => 2147483647", &["22023"]),
    ("'acme', NULL, NULL, page_size => NULL", &["22023", "22004"]),
    ("'acme', NULL, NULL, direction => ''", &["22023"]),
    ("'acme', NULL, NULL, direction => 'sideways'", &["22023"]),
    ("'acme', NULL, NULL, direction => NULL", &["22023", "22004"]),
    ("'acme', '-infinity', NULL", &["22008"]),
    ("'acme', now() - interval '3 hours 2 minutes', NULL", &["22008"]),
    ("'acme', now() - interval '3 hours 2 minutes', now(), direction => 'backward'", &["22008"]),
    ("'unknown', now() - interval '3 hours 2 minutes', now()", &["22008"]),
];

const WRONG_FILTERS: &[&str] = &[
    "[]",
    "1",
    "\"status\"",
    "true",
    r#"[{"status": 200}]"#,
    r#"{"foo": 1}"#,
    r#"{"status": 200, "foo": 1}"#,
    r#"{"Status": 200}"#,
    r#"{"": 200}"#,
    r#"{"status": "200"}"#,
    r#"{"status": "xx"}"#,
    r#"{"status": "20x"}"#,
    r#"{"status": "5xxx"}"#,
    r#"{"status": ""}"#,
    r#"{"status": 404.5}"#,
    r#"{"status": true}"#,
    r#"{"status": null}"#,
    r#"{"status": {}}"#,
    r#"{"status": [[404]]}"#,
    r#"{"status": [404, null]}"#,
    r#"{"status": [404, "all"]}"#,
    r#"{"method": 1}"#,
    r#"{"method": null}"#,
    r#"{"method": ["GET", 1]}"#,
    r#"{"host": {}}"#,
    r#"{"host": [["a"]]}"#,
    r#"{"path": 7}"#,
    r#"{"path": false}"#,
    r#"{"path": ["/a", {}]}"#,
    r#"{"metadata": "k"}"#,
    r#"{"metadata": [1]}"#,
    r#"{"metadata": null}"#,
    r#"{"metadata": 5}"#,
];

#[test]
fn wrong_arguments_are_refused() {
    let database = crate::database("wrong");
    let mut client = database.connect();
    client.execute("SELECT ts_ingest('acme', '[{},{}]')", &[]).expect("ingest");
    for (arguments, states) in WRONG {
        let sql = format!("SELECT * FROM ts_replay_page({arguments})");
        refused(&sql, client.query(&sql, &[]), states);
    }
    for filter in WRONG_FILTERS {
        for org in ["acme", "unknown"] {
            let sql = format!("SELECT * FROM ts_replay_page('{org}', NULL, NULL, filter => '{filter}')");
            let error = refused(&sql, client.query(&sql, &[]), &["22023"]);
            assert!(error.message().starts_with(|c: char| c.is_lowercase()), "{error}");
        }
    }
}

#[test]
fn a_filter_that_nothing_can_pass_lets_nothing_pass() {
    let database = crate::database("nothing");
    let mut client = database.connect();
    client.execute("SELECT ts_ingest('acme', '[{},{}]')", &[]).expect("ingest");
    for filter in [
        r#"{"status": []}"#,
        r#"{"method": []}"#,
        r#"{"host": []}"#,
        r#"{"path": []}"#,
        r#"{"status": 99999999999}"#,
        r#"{"status": 1e400}"#,
        r#"{"status": "9xx"}"#,
        r#"{"status": -2147483649}"#,
        r#"{"host": "x' OR 'a' = 'a"}"#,
        r#"{"path": "' OR true --"}"#,
        r#"{"method": ["') OR (true"]}"#,
        r#"{"metadata": {"a' OR true --": "$$"}}"#,
    ] {
        let sql = format!(
            "SELECT * FROM ts_replay_page('acme', NULL, NULL, filter => '{}')",
            filter.replace('\'', "''")
        );
        match client.query(&sql, &[]) {
            Ok(rows) => assert_eq!(rows.len(), 0, "{filter}"),
            error => drop(refused(filter, error, &["22023"])),
        }
    }
}

#[test]
fn ranges_without_events_are_empty() {
    let database = crate::database("empty");
    let mut client = database.connect();
    client.execute("SELECT ts_ingest('acme', '[{},{}]')", &[]).expect("ingest");
    for arguments in [
        "'acme', now(), now() - interval '1 hour'",
        "'acme', now() - interval '1 hour', now() - interval '1 hour'",
        "'acme', 'infinity', NULL",
        "'acme', NULL, '-infinity'",
        "'acme', NULL, '4713-01-01 BC'",
        "'unknown', NULL, NULL",
        "'unknown', now() - interval '1 hour', now()",
    ] {
        for direction in Direction::BOTH {
            let sql =
                format!("SELECT * FROM ts_replay_page({arguments}, direction => '{}')", direction.name());
            let rows = client.query(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(rows.len(), 0, "{sql}");
        }
    }
    let all = "SELECT * FROM ts_replay_page('acme', NULL, 'infinity')";
    assert_eq!(client.query(all, &[]).expect(all).len(), 2);
}

#[test]
fn a_first_page_may_start_a_minute_before_the_retention_and_tells_of_no_gap() {
    let database = crate::database("grace");
    let mut client = database.connect();
    let now = now_micros();
    client
        .batch_execute(
            "INSERT INTO tailstream.events (id, created_at, org_id, tier) VALUES
                 (1, now() - interval '3 hours 20 seconds', 'acme', 1), (2, now() - interval '2 hours', 'acme', 1)",
        )
        .expect("events");
    for direction in Direction::BOTH {
        for start in [None, Some(now - 3 * HOUR - 30_000_000)] {
            let request = Request { start, ..Request::of("acme", direction) };
            let ids: Vec<i64> = places(&request.page(&mut client)).iter().map(|(_, id)| *id).collect();
            assert_eq!(ids, [2], "{direction:?} from {start:?}");
        }
    }
}
