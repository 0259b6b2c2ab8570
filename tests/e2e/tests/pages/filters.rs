//! What filters make of NULL, and of characters that mean something to LIKE.

use postgres::Client;
use serde_json::{Value, json};
use tailstream_e2e::refused;

use crate::page::{Direction, Request, places};

fn ids(client: &mut Client, filter: Value) -> Vec<i64> {
    let request = Request { filter: Some(filter), ..Request::of("acme", Direction::Forward) };
    places(&request.page(client)).iter().map(|(_, id)| *id).collect()
}

#[test]
fn an_event_without_the_value_does_not_match() {
    let database = crate::database("nulls");
    let mut client = database.connect();
    client
        .batch_execute(
            "INSERT INTO tailstream.events (id, created_at, org_id, tier, host, method, path, status, metadata) VALUES
                 (1, now(), 'acme', 1, NULL, NULL, NULL, NULL, NULL),
                 (2, now(), 'acme', 1, '', '', '', 0, '{}')",
        )
        .expect("events");
    for filter in [
        json!({ "host": "" }),
        json!({ "method": [""] }),
        json!({ "path": "" }),
        json!({ "path": ["/", ""] }),
        json!({ "status": [0, "2xx"] }),
        json!({ "metadata": {} }),
        json!({ "host": "", "method": "", "path": "", "status": 0, "metadata": {} }),
    ] {
        assert_eq!(ids(&mut client, filter.clone()), [2], "{filter}");
    }
    assert_eq!(ids(&mut client, json!({})), [1, 2], "no condition");
    assert_eq!(ids(&mut client, json!({ "host": "", "status": 1 })), [0_i64; 0], "all must hold");
}

#[test]
fn a_prefix_is_taken_letter_by_letter() {
    let database = crate::database("prefixes");
    let mut client = database.connect();
    let paths = ["/a_b", "/aXb", "/100%", "/100", "/b\\s", "/bs", "/ünï", "/API", "/api", "/'q'"];
    for (number, path) in paths.iter().enumerate() {
        let sql = "INSERT INTO tailstream.events (id, created_at, org_id, tier, path) VALUES ($1, now(), 'acme', 1, $2)";
        client.execute(sql, &[&(number as i64), path]).expect(path);
    }
    for (prefix, expected) in [
        ("/a_", vec![0]),
        ("/100%", vec![2]),
        ("/100", vec![2, 3]),
        ("/b\\", vec![4]),
        ("/b", vec![4, 5]),
        ("/ün", vec![6]),
        ("/a", vec![0, 1, 8]),
        ("/'", vec![9]),
        ("/%", vec![]),
        ("a", vec![]),
        ("/api/", vec![]),
    ] {
        assert_eq!(ids(&mut client, json!({ "path": prefix })), expected, "{prefix}");
    }
}

#[test]
fn metadata_is_compared_to_the_last_digit() {
    let database = crate::database("digits");
    let mut client = database.connect();
    let numbers = [
        "12345678901234567890.123456789",
        "12345678901234567890.123456788",
        "0.30000000000000000001",
        "0.3",
        "1e400",
    ];
    for (number, value) in numbers.iter().enumerate() {
        let sql = "INSERT INTO tailstream.events (id, created_at, org_id, tier, metadata)
                   VALUES ($1, now(), 'acme', 1, jsonb_build_object('n', $2::text::numeric))";
        client.execute(sql, &[&(number as i64), value]).expect(value);
    }
    for (number, value) in numbers.iter().enumerate() {
        // The model's JSON does not have as many digits.
        let sql = "SELECT id FROM ts_replay_page('acme', NULL, NULL, filter => jsonb_build_object('metadata', jsonb_build_object('n', $1::text::numeric)))";
        let found = client.query(sql, &[value]).unwrap_or_else(|error| panic!("{value}: {error:?}"));
        let ids: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, [number as i64], "{value}");
    }
}

#[test]
fn a_filter_that_is_far_too_long_is_refused_before_it_is_unfolded() {
    let database = crate::database("long_filters");
    let mut client = database.connect();
    for filter in [
        "jsonb_build_object('path', repeat('x', 65536))",
        "jsonb_build_object('path', repeat('x', 50000000))",
        // A few bytes each, and more than a hundred thousand digits.
        "jsonb_build_object('status', (SELECT jsonb_agg(('1e131000')::jsonb) FROM generate_series(1, 50)))",
    ] {
        let sql = format!("SELECT * FROM ts_replay_page('acme', NULL, NULL, filter => {filter})");
        let error = refused(filter, client.execute(&sql, &[]), &["22023"]);
        assert!(error.message().contains("bytes are too many"), "{filter}: {}", error.message());
    }
}
