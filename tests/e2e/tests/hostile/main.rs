//! Hostile input: stored faithfully, or refused with SQLSTATE class 22 or 23, and the session goes on.

mod documents;
mod keys;

use std::time::Instant;

use postgres::Client;
use tailstream_devkit::event::{now_micros, rfc3339};
use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::{Database, Random, Server, budget, document, refused, sqlstate};

fn database(name: &str) -> Database {
    let database = Database::new(&Server::shared("hostile"), name);
    // Whatever time an event has, it is kept.
    let keep = "SELECT ts_alter_tier('standard', '36500 days')";
    database.connect().batch_execute(keep).expect("a long retention");
    database
}

/// Sends events by both functions. What comes back must say the same as what was sent, seen as jsonb;
/// what does not come back must have been refused properly. Returns how many were stored.
fn survive(client: &mut Client, event: &str) -> usize {
    let shown: String = event.chars().take(300).collect();
    let mut stored = 0;
    for (function, kind) in [("ts_ingest", "::json"), ("ts_ingest_ndjson", "")] {
        if kind.is_empty() && event.contains(['\n', '\r']) {
            continue;
        }
        let sql = format!("SELECT batch_id, accepted FROM {function}('acme', $1::text{kind})");
        match client.query_one(&sql, &[&event]) {
            Err(error) => {
                let state = sqlstate(&error);
                // 54001 is the json type's own, before we see anything.
                let proper = ["22", "23"].contains(&&state[..2]) || (state == "54001" && !kind.is_empty());
                assert!(proper, "{function}: {state} {error:?} of {shown}");
            }
            Ok(row) => {
                let (batch, accepted): (i64, i32) = (row.get(0), row.get(1));
                if accepted == 1 {
                    stored += 1;
                    check_faithful(client, batch, event, &shown);
                }
            }
        }
        assert_eq!(one::<i32>(client, "SELECT 1"), 1, "the session goes on");
    }
    stored
}

/// Encoding the stored event and storing that again gives the same row: nothing was lost on the way in.
fn check_faithful(client: &mut Client, batch: i64, event: &str, shown: &str) {
    let sql = format!("SELECT ts_event(e)::text FROM tailstream.events e WHERE id = {batch}::bigint << 16");
    let back: String = one(client, &sql);
    let missing: Vec<String> = client
        .query(
            "SELECT sent.key || ': ' || sent.value || ' came back as ' || coalesce(back.value::text, 'nothing')
             FROM jsonb_each($1::text::jsonb) sent LEFT JOIN jsonb_each($2::text::jsonb) back USING (key)
             WHERE sent.value <> 'null' AND sent.value IS DISTINCT FROM back.value
               AND sent.key NOT IN ('created_at', 'ts', 'timestamp', 'rt', 'response_time', 'bytes', 'ip', 'ip_address', 'metadata')",
            &[&event, &back],
        )
        .unwrap_or_else(|error| panic!("{error:?} of {shown}"))
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(missing.is_empty(), "{missing:?} of {shown}");
    let again =
        ingest(client, "acme", &back, None).unwrap_or_else(|error| panic!("{error:?} of {back:.300}"));
    let same = format!(
        "SELECT count(DISTINCT to_jsonb(e) - 'id') FROM tailstream.events e
         WHERE id IN ({batch}::bigint << 16, {}::bigint << 16)",
        again.batch_id
    );
    assert_eq!(one::<i64>(client, &same), 1, "{shown} came back as {back:.300}");
}

#[test]
fn known_tricks() {
    let database = database("tricks");
    let mut client = database.connect();
    for event in documents::valid() {
        // The year 1 is before any retention.
        let stored = survive(&mut client, &event);
        assert!(stored == 2 || event.contains("0001-01-01"), "not stored: {event:.200}");
    }
    for event in documents::invalid() {
        assert_eq!(survive(&mut client, &event), 0, "stored: {event:.200}");
    }
}

#[test]
fn org_ids_keys_and_other_arguments() {
    let database = database("arguments");
    let mut client = database.connect();
    let longest = "ö".repeat(255);
    for org in [
        "a b",
        "o'brien",
        "\"q\"",
        "x'; DROP TABLE tailstream.orgs; --",
        "{a}:b:{c}",
        "$1",
        "%s",
        "\\",
        "\n",
        "🦀",
        "NULL",
        &longest,
    ] {
        for _ in 0..2 {
            let done = ingest(&mut client, org, r#"[{"path":"/x"}]"#, Some(org)).expect(org);
            assert_eq!(done.accepted, 1, "{org}");
        }
        let sql =
            "SELECT org_id, path FROM ts_replay($1, now() - interval '1 hour', now() + interval '1 minute')";
        let rows = client.query(sql, &[&org]).expect(org);
        assert_eq!(rows.len(), 1, "{org}: stored once");
        assert_eq!(rows[0].get::<_, &str>(0), org);
        client
            .execute("SELECT ts_set_org_tier($1, 'premium'), ts_replay_window($1), ts_erase_org($1)", &[&org])
            .expect(org);
    }
    let endless = "x".repeat(10_000);
    for org in ["", &"ö".repeat(256), &endless] {
        refused("ingest", ingest(&mut client, org, "{}", None), &["22023"]);
        refused("ndjson", client.query("SELECT ts_ingest_ndjson($1, '{}')", &[&org]), &["22023"]);
        refused("replay", client.query("SELECT * FROM ts_replay($1, now(), now())", &[&org]), &["22023"]);
        refused("window", client.query("SELECT ts_replay_window($1)", &[&org]), &["22023"]);
        refused("tier", client.query("SELECT ts_set_org_tier($1, 'premium')", &[&org]), &["22023", "23514"]);
        refused("org", client.query("SELECT * FROM ts_org($1)", &[&org]), &["22023"]);
        refused("erase", client.query("SELECT ts_erase_org($1)", &[&org]), &["22023"]);
        refused(
            "view",
            client.execute("INSERT INTO tailstream.log_events (org_id) VALUES ($1)", &[&org]),
            &["22023"],
        );
    }
    for key in ["", &endless] {
        refused("key", ingest(&mut client, "a", "{}", Some(key)), &["22023"]);
    }
    for call in [
        "ts_ingest(NULL, '{}')",
        "ts_ingest('a', NULL)",
        "ts_ingest('a', '{}', NULL, NULL)",
        "ts_ingest('a', '{}', NULL, 'maybe')",
        "ts_ingest_ndjson(NULL, '{}')",
        "ts_ingest_ndjson('a', NULL)",
        "ts_replay_window(NULL)",
        "ts_set_org_tier(NULL, 'premium')",
        "ts_create_tier(NULL, '1 hour')",
        "ts_create_tier('t', NULL)",
        "ts_create_tier('', '1 hour')",
        "ts_create_tier('t', '-1 hour')",
        "ts_create_tier('t', '1 month')",
        "ts_create_tier('t', '0')",
        "ts_create_tier(repeat('t', 64), '1 hour')",
        "ts_create_tier('t', '178000000 years')",
        "ts_create_tier('t', 'infinity')",
        "ts_alter_tier('standard', '-infinity')",
        "ts_create_tier('t', '-3 days 48 hours')",
    ] {
        refused(call, client.query(&format!("SELECT {call}"), &[]), &["22023", "22004", "22008", "23502"]);
    }
    for times in ["'-infinity', 'infinity'", "'4713-01-01 BC', now()", "'-infinity', '-infinity'"] {
        refused(times, client.query(&format!("SELECT * FROM ts_replay('a', {times})"), &[]), &["22008"]);
    }
    for times in [
        "now(), 'infinity'",
        "'infinity', 'infinity'",
        "now(), now() - interval '1 day'",
        "NULL, now()",
        "now(), NULL",
    ] {
        let rows = client.query(&format!("SELECT * FROM ts_replay('a', {times})"), &[]);
        assert_eq!(rows.unwrap_or_else(|error| panic!("{times}: {error:?}")).len(), 0, "{times}");
    }
}

#[test]
fn invalid_utf8_and_a_hundred_megabytes() {
    let database = database("big");
    let mut client = database.connect();
    for bytes in ["\\xff", "\\xc0\\x80", "\\xed\\xa0\\x80", "\\xf5\\x80\\x80\\x80"] {
        for call in [
            format!(r#"ts_ingest('a', E'{{"a":"{bytes}"}}')"#),
            format!("ts_ingest_ndjson(E'{bytes}', '{{}}')"),
        ] {
            refused(&call, client.batch_execute(&format!("SELECT {call}")), &["22021"]);
        }
    }
    let big = "SELECT accepted FROM ts_ingest('big', ('{\"path\":\"/big\",\"a\":\"' || repeat('0123456789', 10000000) || '\"}')::json)";
    assert_eq!(one::<i32>(&mut client, big), 1);
    let back = "SELECT length(metadata ->> 'a') FROM tailstream.events WHERE path = '/big'";
    assert_eq!(one::<i32>(&mut client, back), 100_000_000);
    let too_big = "SELECT ts_ingest_ndjson('big', '{\"a\":\"' || repeat('0123456789', 28000000) || '\"}')";
    refused("280 MB", client.batch_execute(too_big), &["22023"]);
    let lines = "SELECT accepted FROM ts_ingest_ndjson('lines', repeat(E'{}\\n', 200000))";
    assert_eq!(one::<i32>(&mut client, lines), 200_000);
    let ids = "SELECT count(DISTINCT id) FROM tailstream.events WHERE org_id = 'lines'";
    assert_eq!(one::<i64>(&mut client, ids), 200_000);
}

#[test]
fn mutated_documents() {
    let mut random = Random::new("mutations");
    let database = database("mutations");
    let mut client = database.connect();
    let (until, mut stored, mut sent) = (Instant::now() + budget(10.0), 0, 0);
    let alphabet: Vec<char> =
        "{}[]\",:\\u0dDeE+-.1 \ttnf/\n\u{0}é🦀".chars().filter(|c| *c != '\0').collect();
    while Instant::now() < until {
        let age = random.between(0, 7_000_000_000);
        let mut event: Vec<char> = document::event(&mut random, now_micros() - age).chars().collect();
        for _ in 0..random.below(4) {
            let at = random.below(event.len());
            match random.below(4) {
                0 => drop(event.remove(at)),
                1 => event.insert(at, alphabet[random.below(alphabet.len())]),
                2 => event[at] = alphabet[random.below(alphabet.len())],
                _ => {
                    let end = (at + random.below(30)).min(event.len());
                    let piece: Vec<char> = event[at..end].to_vec();
                    let to = random.below(event.len());
                    event.splice(to..to, piece);
                }
            }
        }
        let event: String = event.into_iter().collect();
        sent += 1;
        stored += survive(&mut client, &event);
    }
    println!("{sent} documents, {stored} stored; {}", rfc3339(now_micros()));
    assert!(stored > 20 && sent > stored / 2, "{stored} of {sent} stored");
}
