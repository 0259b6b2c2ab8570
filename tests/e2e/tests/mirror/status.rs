//! The status functions while the mirror works, and in a database without a mirror.

use std::collections::HashMap;

use tailstream_e2e::database::{column, one};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Mirror, Server, Sides, refused};

use crate::database;

fn metric(sides: &mut Sides, name: &str) -> f64 {
    one(&mut sides.client, &format!("SELECT sum(value) FROM ts_metrics() WHERE name = 'tailstream_{name}'"))
}

#[test]
fn status_metrics_and_health_agree() {
    let (database, mut sides) = database("reported");
    sides.settle(&[]);
    let before = sides.status();
    assert_eq!(
        (before.state.as_str(), before.connected, before.last_error.as_deref()),
        ("running", true, None)
    );
    sides.ingest("acme", 40);
    sides.ingest("globex", 2);
    sides.settle(&["acme", "globex"]);
    let after = sides.status();
    assert_eq!(after.entries_sent - before.entries_sent, 42);
    assert_eq!(
        (after.entries_resent - before.entries_resent, after.entries_expired, after.retries),
        (0, 0, 0)
    );
    let row = sides.client.query_one(
        "SELECT database, coalesce(oldest_unmirrored, '0') = '0', last_error_at FROM ts_mirror_status()",
        &[],
    );
    let row = row.expect("ts_mirror_status");
    assert_eq!((row.get(0), row.get(1)), (database.name.as_str(), true));
    let row = sides.client.query_one(
        "SELECT org_id, stream_key, mirrored, state, backlog_batches, backlog_events, oldest_unmirrored IS NULL FROM ts_mirror_status('acme')", &[]);
    let row = row.expect("ts_mirror_status");
    let found: (&str, &str, bool, &str) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(found, ("acme", "m:reported:{acme}", true, "running"));
    assert_eq!((row.get::<_, i64>(4), row.get::<_, i64>(5), row.get::<_, bool>(6)), (0, 0, true));
    sides.client.batch_execute("SELECT ts_set_mirror('acme', false)").expect("ts_set_mirror");
    assert_eq!(one::<String>(&mut sides.client, "SELECT state FROM ts_mirror_status('acme')"), "off");

    for (name, value) in [
        ("ingest_batches_total", 3.0),
        ("ingest_events_total", 44.0),
        ("mirror_entries_total", 44.0),
        ("mirror_lag_seconds_count", 0.0),
        ("ingest_duration_seconds_count", 3.0),
        ("sequencer_batches_total", 3.0),
        ("worker_up", 2.0),
    ] {
        let found = metric(&mut sides, name);
        assert!(found == value || (value == 0.0 && found > 0.0), "{name}: {found}");
    }
    let mut rolled_back = database.connect();
    rolled_back.batch_execute("BEGIN; SELECT ts_ingest('acme', '[{},{}]'); ROLLBACK").expect("a rollback");
    assert_eq!(metric(&mut sides, "ingest_events_total"), 44.0, "only what committed counts");
    let odd: Vec<String> = column(
        &mut sides.client,
        "SELECT m::text FROM ts_metrics() m WHERE name !~ '^tailstream_[a-z_]+$' OR labels ->> 'database' <> 'reported'
             OR type NOT IN ('counter', 'gauge', 'histogram') OR help = '' OR value < 0
             OR type = 'counter' AND name !~ '_total$'",
    );
    assert!(odd.is_empty(), "{odd:?}");
    let health: HashMap<String, String> = sides
        .client
        .query("SELECT component, status || ' ' || detail FROM ts_health()", &[])
        .expect("ts_health")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!((&*health["sequencer"], &*health["mirror"]), ("ok running", "ok running"));
}

#[test]
fn the_size_and_the_age_of_the_backlog_are_reported() {
    let mirror = Mirror::new("mirror-backlog");
    let mut sides = mirror.sides();
    sides.settle(&[]);
    mirror.set("tailstream.redis_url", "redis://127.0.0.1:1");
    sides.wait_for_state("failing");
    sides.ingest("acme", 3);
    sides.ingest("globex", 4);
    sides.wait_until_placed();
    let status = sides.status();
    assert_eq!((status.backlog_batches, status.backlog_events, status.connected), (2, 7, false));
    assert!(status.retries > 0);
    assert!(status.last_error.is_some_and(|error| error.contains("refused")), "the reason is told");
    let aged = "SELECT oldest_unmirrored BETWEEN '1 us' AND '1 minute' AND last_error_at > now() - interval '1 minute' FROM ts_mirror_status()";
    assert!(one::<bool>(&mut sides.client, aged));
    let of_org =
        "SELECT backlog_batches || ' ' || backlog_events || ' ' || state FROM ts_mirror_status('acme')";
    assert_eq!(one::<String>(&mut sides.client, of_org), "1 3 failing");
    let health = "SELECT status || ' ' || detail FROM ts_health() WHERE component = 'mirror'";
    let health: String = one(&mut sides.client, health);
    assert!(health.starts_with("error failing; last error at ") && health.contains("refused"), "{health}");
    mirror.set("tailstream.redis_url", &mirror.redis.url());
    sides.settle(&["acme", "globex"]);
}

#[test]
fn without_a_mirror_the_functions_report_how_to_configure_one() {
    let server = Server::shared_with("mirror-none", |builder| builder.preload(&PRELOAD));
    let database = Database::new(&server, "unlisted");
    let mut client = database.connect();
    for call in [
        "SELECT * FROM ts_mirror_status()",
        "SELECT * FROM ts_mirror_status('a')",
        "SELECT * FROM ts_mirror_verify('a')",
    ] {
        let error = refused(call, client.batch_execute(call), &["55000"]);
        assert!(error.hint().is_some_and(|hint| hint.contains("tailstream.databases")), "{error:?}");
    }
    client
        .batch_execute(
            "SELECT ts_ingest('a', '{}'); SELECT * FROM ts_metrics(); SELECT ts_set_mirror('a', false)",
        )
        .expect("the rest works");
    let health: String = one(&mut client, "SELECT status FROM ts_health() WHERE component = 'mirror'");
    assert_eq!(health, "warning");
}
