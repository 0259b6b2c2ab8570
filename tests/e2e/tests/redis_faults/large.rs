//! Events that are too large for Redis.

use tailstream_e2e::database::ingest;
use tailstream_e2e::{Mirror, Sides};

use crate::{command, wait_for};

/// The smallest limit that Redis can be configured to.
const LIMIT: usize = 1 << 20;

/// An event with a text of `count` backspaces: one byte each in the table, two bytes each in JSON.
fn of_backspaces(count: usize) -> String {
    format!(r#"[{{"path":"/large","note":"{}"}}]"#, "\\b".repeat(count))
}

#[track_caller]
fn store(sides: &mut Sides, org: &str, json: &str) -> i64 {
    ingest(&mut sides.client, org, json, None).expect("ingest").batch_id << 16
}

#[test]
fn an_event_too_large_for_redis_is_left_out_and_logged() {
    let mirror =
        Mirror::with("redis-large", |cluster| cluster, |redis| redis.setting("proto-max-bulk-len", "1mb"));
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.ingest("globex", 5);
    sides.settle(&["acme", "globex"]);
    let large = store(&mut sides, "acme", &of_backspaces(LIMIT / 2 + 1));
    let fits = of_backspaces(LIMIT / 2 - 200);
    store(&mut sides, "globex", &fits);
    sides.ingest("acme", 5);
    sides.ingest("globex", 5);
    // A stream has no holes, so the earlier entries of acme's stream are removed.
    sides.settle_ends(&[("acme", 5), ("globex", usize::MAX)]);
    assert_eq!(sides.length("acme"), 5);
    let error = sides.status().last_error.unwrap_or_default();
    let named = format!("event {large} of org \"acme\" is left out of its stream");
    assert!(error.starts_with(&named), "{error}");
    assert_eq!(mirror.log_lines(&named).len(), 1);
    assert_eq!(sides.status().retries, 0, "nobody had to try twice");
    // A resync writes the same stream.
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    sides.settle_ends(&[("acme", 5), ("globex", usize::MAX)]);
    assert_eq!(sides.length("acme"), 5);
    let oversized = "SELECT value FROM ts_metrics() WHERE name = 'tailstream_mirror_oversized_events_total'";
    let counted: f64 = sides.client.query_one(oversized, &[]).expect("a counter").get(0);
    assert!(counted >= 1.0, "{counted}");
}

#[test]
fn a_backspace_is_written_as_two_bytes_of_json() {
    let mirror =
        Mirror::with("redis-escapes", |cluster| cluster, |redis| redis.setting("proto-max-bulk-len", "1mb"));
    let mut sides = mirror.sides();
    // With six bytes for each character, the event would be too large.
    let controls = "\\b\\f\\n\\r\\t\\\"\\\\".repeat(LIMIT / 2 / 7 - 200);
    store(&mut sides, "acme", &format!(r#"[{{"path":"{controls}"}}]"#));
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
}

#[test]
fn an_org_whose_events_break_the_connection_is_set_aside_and_logged() {
    break_the_connection("redis-poison", 20);
}

/// The next transaction is read while the failing one is in flight, as long as there is no suspect.
#[test]
fn such_an_org_is_set_aside_while_more_than_one_transaction_waits() {
    break_the_connection("redis-poison-more", 100);
}

/// One event among many that are sent together makes Redis close the connection. `behind` batches of each of two orgs
/// follow it.
fn break_the_connection(name: &str, behind: usize) {
    let mirror = Mirror::with(
        name,
        |cluster| cluster,
        // The mirror may not read the limit.
        |redis| {
            redis
                .setting("proto-max-bulk-len", "1mb")
                .setting("user", "default on nopass ~* &* +@all -config")
        },
    );
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.ingest("globex", 5);
    sides.settle(&["acme", "globex"]);
    mirror.redis.pause().expect("SIGSTOP");
    for _ in 0..20 {
        sides.ingest("globex", 10);
        sides.ingest("initech", 7);
    }
    store(&mut sides, "acme", &of_backspaces(LIMIT));
    for _ in 0..behind {
        sides.ingest("globex", 10);
        sides.ingest("acme", 3);
    }
    mirror.redis.resume().expect("SIGCONT");
    wait_for(&mut sides, &[("globex", usize::MAX), ("initech", usize::MAX)]);
    sides.ingest("globex", 1);
    wait_for(&mut sides, &[("globex", usize::MAX), ("initech", usize::MAX)]);
    let state = "SELECT state FROM ts_mirror_status('acme')";
    let state: String = tailstream_e2e::database::one(&mut sides.client, state);
    assert_eq!(state, "rebuilding: failed");
    let lines = mirror.log_lines("the stream of org \"acme\" must be written again");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for org in ["globex", "initech"] {
        assert!(mirror.log_lines(&format!("org \"{org}\" must be written again")).is_empty());
    }
    // If the mirror can read the limit, nothing fails.
    command(&mut sides, &["ACL", "SETUSER", "default", "+config"]);
    command(&mut sides, &["CONFIG", "SET", "proto-max-bulk-len", "512mb"]);
    sides.settle(&["acme", "globex", "initech"]);
}
