//! Both lanes store the same rows, and the direct one steps back where it would not.

use std::time::Instant;

use postgres::Client;
use tailstream_devkit::event::{json_array, now_micros};
use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Random, Server, budget, document, refused};

const HOUR: i64 = 3_600_000_000;
const LANES: [&str; 2] = ["executor", "direct"];

fn database(name: &str) -> Database {
    // The WAL of a test must still be there when it is looked at.
    let server =
        Server::shared_with("lanes", |builder| builder.preload(&PRELOAD).setting("wal_keep_size", "2GB"));
    let database = Database::new(&server, name);
    database
        .connect()
        .batch_execute("CREATE EXTENSION amcheck; CREATE EXTENSION pg_walinspect")
        .expect("extensions");
    database
}

fn lane(client: &mut Client, lane: &str) {
    client.batch_execute(&format!("SET tailstream.ingest_lane = {lane}")).expect("lane");
}

fn wal_position(client: &mut Client) -> String {
    one(client, "SELECT pg_current_wal_insert_lsn()::text")
}

/// How many pages of event chunks got several rows at once since then: the executor never does that.
fn multi_inserts(client: &mut Client, since: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_get_wal_block_info('{since}', pg_current_wal_flush_lsn()) w
         JOIN pg_class c ON c.relfilenode = w.relfilenode JOIN pg_inherits i ON i.inhrelid = c.oid
         WHERE i.inhparent = 'tailstream.events'::regclass AND w.record_type LIKE 'MULTI_INSERT%'
           AND w.reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    one(client, &sql)
}

/// Every index of every chunk has each row of its heap.
fn check_indexes(client: &mut Client) {
    let sql = "SELECT count(bt_index_check(x.indexrelid, true)) FROM pg_index x
               JOIN pg_inherits i ON i.inhrelid = x.indrelid WHERE i.inhparent = 'tailstream.events'::regclass";
    assert!(one::<i64>(client, sql) > 0, "there are no indexes to check");
}

/// Rows of an org, without what must differ.
fn rows(client: &mut Client, org: &str) -> Vec<String> {
    let sql = "SELECT (to_jsonb(e) - 'id' - 'org_id' || jsonb_build_object('offset', id & 65535) ||
                   jsonb_build_object('event', ts_event(e)::text))::text
               FROM tailstream.events e WHERE org_id = $1 ORDER BY id & 65535, id";
    let rows = client.query(sql, &[&org]).expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn the_same_batches_give_the_same_rows_and_indexes() {
    let mut random = Random::new("lanes");
    let database = database("same");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE INDEX by_path ON tailstream.events (lower(left(path, 90)), status) WHERE status > 0",
        )
        .expect("an expression index");
    let until = Instant::now() + budget(8.0);
    let (start, mut round) = (wal_position(&mut client), 0);
    while Instant::now() < until || round < 3 {
        let size = if round < 3 { 300 } else { [1, 2, 30, 300][random.below(4)] };
        let now = now_micros();
        let events: Vec<String> = (0..size)
            .map(|_| {
                let age = random.between(0, 2 * HOUR);
                document::event(&mut random, now - age)
            })
            .collect();
        let json = json_array(&events);
        for name in LANES {
            lane(&mut client, name);
            let done = ingest(&mut client, &format!("{name}-{round}"), &json, None);
            let done = done.unwrap_or_else(|error| panic!("{name}: {error:?}\n{json}"));
            assert_eq!(done.accepted, size);
        }
        let [executor, direct] = LANES.map(|name| rows(&mut client, &format!("{name}-{round}")));
        assert_eq!(executor.len() as i32, size);
        assert_eq!(executor, direct);
        round += 1;
        if round == 3 {
            assert!(multi_inserts(&mut client, &start) > 0, "the direct lane was never taken");
        }
    }
    check_indexes(&mut client);
    client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").expect("settings");
    for sql in [
        "SELECT count(*) FILTER (WHERE org_id LIKE 'direct%') - count(*) FILTER (WHERE org_id LIKE 'exec%')
         FROM tailstream.events WHERE org_id >= ''",
        "SELECT count(*) FILTER (WHERE org_id LIKE 'direct%') - count(*) FILTER (WHERE org_id LIKE 'exec%')
         FROM tailstream.events WHERE lower(left(path, 90)) = '/' AND status > 0",
    ] {
        assert_eq!(one::<i64>(&mut client, sql), 0, "{sql}");
    }
}

#[test]
fn batches_over_many_chunks_land_in_the_right_ones() {
    let database = database("chunks");
    let mut client = database.connect();
    let this_hour = now_micros() / HOUR * HOUR;
    // First and last microseconds of hours, in no order.
    let times: Vec<i64> =
        (0..40).map(|n| this_hour - (n * 7 % 3) * HOUR + [0, -1, -HOUR / 2][n as usize % 3]).collect();
    let events: Vec<String> = times
        .iter()
        .map(|time| format!(r#"{{"created_at":"{}"}}"#, tailstream_devkit::event::rfc3339(*time)))
        .collect();
    for name in LANES {
        lane(&mut client, name);
        client.execute("SELECT ts_set_org_tier($1, 'premium')", &[&name]).expect("org");
        for _ in 0..2 {
            ingest(&mut client, name, &json_array(&events), None).expect("ingest");
        }
    }
    let [executor, direct] = LANES.map(|name| rows(&mut client, name));
    assert_eq!((executor.len(), executor), (80, direct));
    let misplaced = "SELECT count(*) FROM tailstream.events e JOIN tailstream.chunks('tailstream.events', 'created_at') c
                     ON c.chunk = e.tableoid WHERE e.created_at < c.range_start OR e.created_at >= c.range_end OR e.tier <> c.tier";
    assert_eq!(one::<i64>(&mut client, misplaced), 0);
    check_indexes(&mut client);
}

/// A session that knows the chunk of this moment, and takes the direct lane.
fn warmed_up(database: &Database) -> Client {
    let mut client = database.connect();
    lane(&mut client, "direct");
    for _ in 0..2 {
        ingest(&mut client, "acme", "[{},{},{}]", None).expect("ingest");
    }
    let start = wal_position(&mut client);
    ingest(&mut client, "acme", "[{},{},{}]", None).expect("ingest");
    assert!(multi_inserts(&mut client, &start) > 0, "the direct lane is not taken");
    client
}

fn stored(client: &mut Client, condition: &str) -> i64 {
    one(client, &format!("SELECT count(*) FROM tailstream.events WHERE {condition}"))
}

#[test]
fn what_users_add_to_the_table_counts_in_both_lanes() {
    let database = database("additions");
    let mut client = warmed_up(&database);
    let mut admin = database.connect();
    let mut now =
        |change: &str| admin.batch_execute(change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
    let path = |name: &str| format!(r#"[{{"path":"{name}"}},{{"path":"{name}"}}]"#);

    now("ALTER TABLE tailstream.events ADD CONSTRAINT positive CHECK (status > 0)");
    let error = ingest(&mut client, "acme", r#"[{"path":"check"},{"status":0}]"#, None);
    refused("a CHECK constraint", error, &["23514"]);
    assert_eq!(stored(&mut client, "path = 'check'"), 0);
    now("ALTER TABLE tailstream.events DROP CONSTRAINT positive");
    ingest(&mut client, "acme", r#"{"status":0}"#, None).expect("without the constraint");
    now("DELETE FROM tailstream.events WHERE status = 0");

    now(
        "UPDATE tailstream.events SET host = 'h'; ALTER TABLE tailstream.events ALTER COLUMN host SET NOT NULL",
    );
    refused("NOT NULL", ingest(&mut client, "acme", &path("null"), None), &["23502"]);
    now("ALTER TABLE tailstream.events ALTER COLUMN host DROP NOT NULL");

    now("CREATE TABLE log (n int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (1); RETURN NEW; END';
         CREATE TRIGGER each_row AFTER INSERT ON tailstream.events FOR EACH ROW EXECUTE FUNCTION note()");
    ingest(&mut client, "acme", &path("row trigger"), None).expect("ingest");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM log"), 2);
    // A chunk that had triggers once says so until it is vacuumed; in a new one the session is back in its lane.
    now("DROP TRIGGER each_row ON tailstream.events; TRUNCATE log, tailstream.events");
    let start = wal_position(&mut client);
    for _ in 0..3 {
        ingest(&mut client, "acme", "[{},{},{}]", None).expect("ingest");
    }
    assert!(multi_inserts(&mut client, &start) > 0, "the direct lane is not taken again");
    now(
        "CREATE TRIGGER each_statement AFTER INSERT ON tailstream.events FOR EACH STATEMENT EXECUTE FUNCTION note()",
    );
    ingest(&mut client, "acme", &path("statement trigger"), None).expect("ingest");
    assert!(one::<i64>(&mut client, "SELECT count(*) FROM log") > 0, "a statement trigger");
    now("DROP TRIGGER each_statement ON tailstream.events");

    now("TRUNCATE tailstream.events; CREATE UNIQUE INDEX once ON tailstream.events (path, created_at, tier)");
    let twice = r#"[{"path":"u","ts":"2999-01-01T00:00:00Z"},{"path":"u","ts":"2999-01-01T00:00:00Z"}]"#;
    let twice = twice.replace("2999-01-01T00:00:00Z", &tailstream_devkit::event::rfc3339(now_micros()));
    refused("a unique index", ingest(&mut client, "acme", &twice, None), &["23505"]);
    now("DROP INDEX tailstream.once; CREATE INDEX failing ON tailstream.events ((100 / (status - 7)))");
    refused("an index expression", ingest(&mut client, "acme", r#"[{"status":7},{}]"#, None), &["22012"]);
    now("DROP INDEX tailstream.failing");

    now("ALTER TABLE tailstream.events ADD COLUMN region text NOT NULL DEFAULT 'eu'");
    ingest(&mut client, "acme", &path("default"), None).expect("ingest");
    assert_eq!(stored(&mut client, "path = 'default' AND region = 'eu'"), 2);
    now("ALTER TABLE tailstream.events ADD COLUMN twice int GENERATED ALWAYS AS (status * 2) STORED");
    ingest(&mut client, "acme", &path("generated"), None).expect("ingest");
    assert_eq!(stored(&mut client, "path = 'generated' AND twice = 400"), 2);
    check_indexes(&mut client);
}

#[test]
fn chunks_that_come_and_go_under_a_session() {
    let database = database("gone");
    let mut client = warmed_up(&database);
    let mut other = database.connect();
    let here = |client: &mut Client| stored(client, "path = 'here'");
    let send = |client: &mut Client| {
        let done = ingest(client, "acme", r#"[{"path":"here"},{"path":"here"}]"#, None).expect("ingest");
        assert_eq!(done.accepted, 2);
    };
    let chunk = "SELECT chunk::text FROM tailstream.chunks('tailstream.events', 'created_at') LIMIT 1";
    for drop in
        ["DROP TABLE {}", "SELECT _timescaledb_functions.drop_chunk('{}')", "TRUNCATE tailstream.events"]
    {
        let name: String = one(&mut other, chunk);
        other.batch_execute(&drop.replace("{}", &name)).expect("a drop");
        send(&mut client);
        assert_eq!(here(&mut client), 2, "after {drop}");
        send(&mut client);
        assert_eq!(here(&mut client), 4, "after {drop}");
    }

    for (undo, left) in [("ROLLBACK", 0), ("ROLLBACK TO s; COMMIT", 0), ("COMMIT", 8)] {
        other.batch_execute("TRUNCATE tailstream.events").expect("truncate");
        client.batch_execute("BEGIN; SAVEPOINT s").expect("begin");
        for stored in [2, 4, 6, 8] {
            send(&mut client);
            assert_eq!(here(&mut client), stored, "the transaction sees its own rows");
        }
        client.batch_execute(undo).expect("the end");
        assert_eq!(here(&mut other), left, "{undo}");
        send(&mut client);
        send(&mut client);
        assert_eq!(here(&mut other), left + 4, "after {undo}");
    }
    check_indexes(&mut client);
}

/// The index raises in the middle of a batch, when rows are in the heap and the lane holds tables, slots and memory.
#[test]
fn an_error_amid_the_direct_lane_leaves_a_healthy_session() {
    let database = database("amid");
    let mut client = database.connect();
    client
        .batch_execute(
            "SET tailstream.ingest_lane = direct;
             SELECT ts_ingest('acme', '{}');
             CREATE INDEX raising ON tailstream.events ((1 / (status - 500)));
             CREATE UNIQUE INDEX once ON tailstream.events (path, created_at, tier) WHERE path LIKE '/once%'",
        )
        .expect("indexes that raise");
    let log = || std::fs::read_to_string(database.cluster.log_path()).expect("the server's log");
    let warned = log().matches("WARNING").count();
    let now = now_micros();
    let batch = |bad: &str| -> String {
        let event = |n: i64| format!(r#"{{"ts":{},"path":"/{n}"}}"#, (now - n) / 1000);
        let events: Vec<String> =
            (0..400).map(event).chain([bad.to_owned()]).chain((400..500).map(event)).collect();
        json_array(&events)
    };
    let once = format!(r#"{{"ts":{0},"path":"/once"}},{{"ts":{0},"path":"/once"}}"#, now / 1000 - 600_000);
    let (raising, twice, good) = (batch(r#"{"status":500}"#), batch(&once), batch("{}"));
    for round in 0..50 {
        for (bad, states) in [(&raising, "22012"), (&twice, "23505")] {
            refused("a batch", ingest(&mut client, "acme", bad, None), &[states]);
            client.batch_execute("BEGIN; SAVEPOINT s").expect("a savepoint");
            refused("a batch", ingest(&mut client, "acme", bad, None), &[states]);
            client.batch_execute("ROLLBACK TO s").expect("ROLLBACK TO");
            ingest(&mut client, "acme", r#"{"path":"/saved"}"#, None).expect("what comes after it");
            client.batch_execute("COMMIT").expect("COMMIT");
        }
        client
            .execute(
                "DO $$BEGIN PERFORM ts_ingest('acme', '[{},{},{\"status\":500}]'); EXCEPTION WHEN division_by_zero THEN NULL; END$$",
                &[],
            )
            .unwrap_or_else(|error| panic!("{round}: {error:?}"));
    }
    cancelled_amid_it(&database, &mut client);
    let start = wal_position(&mut client);
    assert_eq!(ingest(&mut client, "acme", &good, None).expect("a good batch").accepted, 501);
    assert!(multi_inserts(&mut client, &start) > 0, "the direct lane is still taken");
    let stored = "SELECT count(*) FROM tailstream.events WHERE org_id = 'acme'";
    assert_eq!(one::<i64>(&mut client, stored), 1 + 100 + 501);
    check_indexes(&mut client);
    let said = log();
    assert_eq!(said.matches("WARNING").count(), warned, "{said}");
    assert!(!said.contains("was terminated by signal"), "{said}");
}

/// Statements that are cancelled while an index waits.
fn cancelled_amid_it(database: &Database, client: &mut Client) {
    client
        .batch_execute(
            "CREATE FUNCTION public.slow(status integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS
                 'BEGIN IF status = 599 THEN PERFORM pg_sleep(60); END IF; RETURN status; END';
             CREATE INDEX slow ON tailstream.events (public.slow(status)) WHERE status = 599;
             SET statement_timeout = '50ms'",
        )
        .expect("an index that takes its time");
    for _ in 0..5 {
        let slow = r#"[{},{},{"status":599},{}]"#;
        refused("a slow batch", ingest(client, "acme", slow, None), &["57014"]);
    }
    client.batch_execute("RESET statement_timeout").expect("RESET");
    database.connect().batch_execute("DROP INDEX tailstream.slow").expect("DROP INDEX");
}
