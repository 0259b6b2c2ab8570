//! A schedule is part of the caller's query: rows come as they are read, and no more are read than are wanted.

use postgres::Client;
use serde_json::Value;
use tailstream_e2e::Database;
use tailstream_e2e::database::{column, one};

use crate::plan::{Observer, Plan, chunks, index_scans, scans};

/// Events of each org.
const EVENTS: i64 = 20_000;
const ORGS: i64 = 8;

/// Events of some hours as they come in: in the order of time, those of many orgs side by side.
fn prepare(name: &str) -> Database {
    let database = crate::database(name);
    let sql = format!(
        "SELECT ts_set_org_tier('acme', 'premium');
         INSERT INTO tailstream.events (id, created_at, org_id, tier, path, status, user_agent)
         SELECT n, now() - interval '3 hours' + n * interval '60 milliseconds',
                CASE n % {ORGS} WHEN 0 THEN 'acme' ELSE 'org-' || n % {ORGS} END, 1 + n / {ORGS} % 2, '/' || n,
                CASE n / {ORGS} % 10 WHEN 0 THEN 500 ELSE 200 END, repeat('x', 100)
         FROM generate_series(1, {EVENTS} * {ORGS}) n;
         ANALYZE tailstream.events"
    );
    database.connect().batch_execute(&sql).expect("events");
    database
}

const SCHEDULE: &str = "ts_replay_schedule('acme', now() - interval '6 hours', now() + interval '1 minute'";
/// Events that it reads at a time.
const PAGE: usize = 1_000;

/// The function itself is gone from the plan; what is left of it takes rows as they come.
#[track_caller]
fn check_inlined(client: &mut Client, sql: &str) {
    let explained: Value = one(client, &format!("EXPLAIN (FORMAT JSON) {sql}"));
    let kinds: Vec<String> = Plan::of(&explained[0]).nodes.into_iter().map(|node| node.kind).collect();
    assert!(!kinds.iter().any(|kind| kind.contains("Sort") || kind == "Function Scan"), "{sql}: {kinds:?}");
}

/// A session that sees all orgs, one that is bound, and one that plans once for all arguments.
fn sessions(database: &Database) -> [Observer; 3] {
    let mut sessions = [(); 3].map(|()| Observer::new(database));
    sessions[1].client.batch_execute("SET tailstream.org = 'acme'").expect("a bound session");
    sessions[2].client.batch_execute("SET plan_cache_mode = force_generic_plan").expect("generic plans");
    sessions
}

/// The token of some row.
fn token(database: &Database, row: i64) -> String {
    one(&mut database.connect(), &format!("SELECT cursor FROM {SCHEDULE}) OFFSET {row} LIMIT 1"))
}

#[test]
fn a_schedule_is_inlined_and_streams() {
    let database = prepare("streaming");
    let chunks = chunks(&mut database.connect());
    let after = token(&database, 9000);
    for mut session in sessions(&database) {
        for arguments in
            [")".to_owned(), format!(", after => '{after}')"), ", speed => 100, max_rate => 7)".to_owned()]
        {
            for (wanted, pages) in [(1, 1), (PAGE - 1, 1), (PAGE + 1, 2), (3 * PAGE + 1, 4)] {
                let sql = format!("SELECT id FROM {SCHEDULE}{arguments} LIMIT {wanted}");
                check_inlined(&mut session.client, &sql);
                let (ids, plans) = session.nested(|client| column::<i64>(client, &sql));
                assert_eq!(ids.len(), wanted);
                let scans = index_scans(&plans, &chunks);
                let rows: f64 = scans.iter().map(|scan| scan.rows).sum();
                let most = (pages * PAGE + scans.len() + 1) as f64;
                assert!(rows <= most, "{rows} rows were read for {sql}: {scans:?}");
            }
        }
    }
}

#[test]
fn a_schedules_position_range_and_filter_reach_the_index() {
    const BEHIND: i64 = EVENTS - 5_000;
    let database = prepare("scheduled");
    let chunks = chunks(&mut database.connect());
    let after = token(&database, BEHIND - 1);
    for mut session in sessions(&database) {
        let rest =
            format!("SELECT id FROM {SCHEDULE}, after => '{after}', filter => '{{\"status\": \"5xx\"}}')");
        let (ids, plans) = session.nested(|client| column::<i64>(client, &rest));
        let failures = |n: &i64| n % 10 == 0;
        let expected: Vec<i64> = (BEHIND + 1..=EVENTS).filter(failures).map(|n| n * ORGS).collect();
        assert_eq!(ids, expected);
        let scans = scans(&plans, &chunks);
        let rows: f64 = scans.iter().map(|scan| scan.rows).sum();
        assert!(
            rows <= (EVENTS - BEHIND + 20) as f64,
            "{rows} rows were read of the last {}",
            EVENTS - BEHIND
        );
        for scan in scans.iter().filter(|scan| scan.kind == "Index Scan") {
            assert!(scan.index_cond.contains("org_id = "), "{scan:?}");
            assert!(scan.index_cond.contains("created_at >= "), "no beginning: {scan:?}");
            assert!(scan.index_cond.contains("created_at < "), "no end: {scan:?}");
            assert!(scan.filter.contains("status"), "{scan:?}");
        }
    }
}

#[test]
fn a_database_cursor_over_a_schedule_gives_what_it_has() {
    let database = prepare("declared");
    let mut client = database.connect();
    let mut transaction = client.transaction().expect("a transaction");
    let whole: Vec<i64> = (1..=EVENTS).map(|n| n * ORGS).collect();
    // Whatever of a row is wanted, the order is the same.
    for columns in ["id, play_at", "id, cursor", "id"] {
        let declare = format!("DECLARE replay NO SCROLL CURSOR FOR SELECT {columns} FROM {SCHEDULE})");
        transaction.batch_execute(&declare).expect("a cursor");
        let mut ids: Vec<i64> = Vec::new();
        for size in [1, 10, 1000, 50_000] {
            ids.extend(column::<i64>(&mut transaction, &format!("FETCH {size} FROM replay")));
        }
        assert!(ids == whole, "SELECT {columns}: out of order, beginning with {:?}", &ids[..10]);
        transaction.batch_execute("CLOSE replay").expect("CLOSE");
    }
}

/// The most memory that a session's process ever had, in kB.
fn peak_memory(client: &mut Client) -> i64 {
    let pid: i32 = one(client, "SELECT pg_backend_pid()");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the session's process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn large_events_are_fetched_when_their_turn_comes() {
    let database = crate::database("large_events");
    let sql = format!(
        "INSERT INTO tailstream.events (id, created_at, org_id, tier, path, metadata)
         SELECT n, now() - n * interval '1 second', 'acme', 1, '/' || n,
                jsonb_build_object('x', (SELECT string_agg(md5(n || '-' || part), '') FROM generate_series(1, 2000) part))
         FROM generate_series(1, {PAGE}) n"
    );
    database.connect().batch_execute(&sql).expect("64 MB of events");
    let mut client = database.connect();
    let mut first = |wanted: usize| {
        let sql = format!(
            "SELECT length(metadata ->> 'x') FROM ts_replay_schedule('acme', NULL, NULL) LIMIT {wanted}"
        );
        assert_eq!(column::<i32>(&mut client, &sql), vec![64_000; wanted]);
        peak_memory(&mut client)
    };
    let before = first(1);
    assert!(first(5) - before < 8_000, "{before} kB before");
    assert!(before < 50_000, "{before} kB for one event");
}
