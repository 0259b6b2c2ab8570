//! Events that Redis does not take.

use tailstream_e2e::database::ingest;
use tailstream_e2e::{Mirror, Sides};

use crate::{command, wait_for};

/// Below it Redis sets no limit.
const LIMIT: usize = 1 << 20;

/// An event whose text is so many backspaces: one byte each in the table, two as JSON.
fn of_backspaces(count: usize) -> String {
    format!(r#"[{{"path":"/large","note":"{}"}}]"#, "\\b".repeat(count))
}

#[track_caller]
fn store(sides: &mut Sides, org: &str, json: &str) -> i64 {
    ingest(&mut sides.client, org, json, None).expect("ingest").batch_id << 16
}

#[test]
fn an_event_that_is_larger_than_redis_takes_is_left_out_and_named() {
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
    // A stream has no hole, so what acme's held from before is gone.
    sides.settle_ends(&[("acme", 5), ("globex", usize::MAX)]);
    assert_eq!(sides.length("acme"), 5);
    let error = sides.status().last_error.unwrap_or_default();
    let named = format!("event {large} of org \"acme\" is left out of its stream");
    assert!(error.starts_with(&named), "{error}");
    assert_eq!(mirror.log_lines(&named).len(), 1);
    assert_eq!(sides.status().retries, 0, "nobody had to try twice");
    // Made again the stream is the same.
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    sides.settle_ends(&[("acme", 5), ("globex", usize::MAX)]);
    assert_eq!(sides.length("acme"), 5);
    let oversized = "SELECT value FROM ts_metrics() WHERE name = 'tailstream_mirror_oversized_events_total'";
    let counted: f64 = sides.client.query_one(oversized, &[]).expect("a counter").get(0);
    assert!(counted >= 1.0, "{counted}");
}

#[test]
fn a_backspace_takes_no_more_room_than_it_came_in_with() {
    let mirror =
        Mirror::with("redis-escapes", |cluster| cluster, |redis| redis.setting("proto-max-bulk-len", "1mb"));
    let mut sides = mirror.sides();
    // As six bytes each they would be too many.
    let controls = "\\b\\f\\n\\r\\t\\\"\\\\".repeat(LIMIT / 2 / 7 - 200);
    store(&mut sides, "acme", &format!(r#"[{{"path":"{controls}"}}]"#));
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
}

#[test]
fn an_org_whose_events_break_the_connection_is_set_aside_and_named() {
    break_the_connection("redis-poison", 20);
}

/// While its part is under way the next one is read, where there is no suspicion.
#[test]
fn so_is_one_with_more_behind_it_than_is_sent_together() {
    break_the_connection("redis-poison-more", 100);
}

/// Amid many others, which are sent together, one event makes Redis close the connection; so many batches of each of two
/// orgs come behind it.
fn break_the_connection(name: &str, behind: usize) {
    let mirror = Mirror::with(
        name,
        |cluster| cluster,
        // Nobody is told of the limit.
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
    let lines = mirror.log_lines("the stream of org \"acme\" has to be made again");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for org in ["globex", "initech"] {
        assert!(mirror.log_lines(&format!("org \"{org}\" has to be made again")).is_empty());
    }
    // With room for it all is well.
    command(&mut sides, &["ACL", "SETUSER", "default", "+config"]);
    command(&mut sides, &["CONFIG", "SET", "proto-max-bulk-len", "512mb"]);
    sides.settle(&["acme", "globex", "initech"]);
}
