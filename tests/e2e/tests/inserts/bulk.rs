//! Statements of many rows, as ORMs send them.

use std::io::Write;

use postgres::Client;
use tailstream_e2e::database::{column, one};
use tailstream_e2e::{Random, refused};

use crate::{batches, check_ledger, database, stored};

/// Rows that differ in every column, some without any; none is expired.
const ROWS: &str = "
    SELECT CASE n % 7 WHEN 0 THEN NULL ELSE now() - n * interval '1.000001 second' END AS created_at, 'acme' AS org_id,
           CASE n % 3 WHEN 0 THEN NULL ELSE 'h' || n END AS host, CASE n % 5 WHEN 0 THEN NULL ELSE 'PUT' END AS method,
           CASE n % 6 WHEN 0 THEN NULL ELSE E'/\"\\\\\n\t\u{e4}' || n END AS path, CASE n % 4 WHEN 0 THEN NULL ELSE -n END AS status,
           CASE n % 3 WHEN 1 THEN NULL ELSE n END AS response_time, CASE n % 2 WHEN 1 THEN NULL ELSE n * 10000000000 END AS response_size,
           CASE n % 5 WHEN 1 THEN NULL ELSE repeat('agent ', n % 900) END AS user_agent,
           CASE n % 4 WHEN 3 THEN NULL ELSE 'http://x/' || n END AS referrer,
           CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '10.0.0.0/8'::inet + n ELSE '::1'::inet + n END AS ip_address,
           CASE n % 11 WHEN 0 THEN NULL WHEN 1 THEN 'null' WHEN 2 THEN '[1, 2.50]' WHEN 3 THEN '{}' WHEN 4 THEN '\"text\"' WHEN 5 THEN '7'
               WHEN 6 THEN '{\"path\": 1, \"ts\": null, \"rt\": 3}' WHEN 7 THEN '{\"metadata\": {\"a\": 1}}' WHEN 8 THEN '{\"metadata\": 5}'
               WHEN 9 THEN '{\"\": {\"n\": 1.10, \"u\": \"\u{20ac}\"}}' ELSE format('{\"k\": %s}', n) END::jsonb AS metadata
    FROM generate_series(1, 300) n";
const COLUMNS: &str = "created_at, org_id, host, method, path, status, response_time, response_size, user_agent, referrer, ip_address, metadata";

/// Compares what RETURNING showed, kept in table `shown`, with what is stored.
#[track_caller]
fn check_shown(client: &mut Client, rows: i64) {
    let shown = format!("SELECT id, {COLUMNS} FROM shown");
    let there = format!("SELECT id, {COLUMNS} FROM tailstream.events");
    assert_eq!(one::<i64>(client, "SELECT count(DISTINCT id) FROM shown"), rows);
    let differing = format!(
        "SELECT count(*) FROM (({shown} EXCEPT ALL {there}) UNION ALL ({there} EXCEPT ALL {shown})) d"
    );
    assert_eq!(one::<i64>(client, &differing), 0, "RETURNING showed something else");
    check_ledger(client);
}

#[test]
fn one_statement_is_one_batch_and_returning_shows_what_is_stored() {
    let database = database("one_batch");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE shown (LIKE tailstream.log_events)").expect("a table");
    let insert = format!("INSERT INTO tailstream.log_events ({COLUMNS}) {ROWS} RETURNING *");
    let keep = format!("WITH x AS ({insert}) INSERT INTO shown SELECT * FROM x");
    client.batch_execute(&keep).expect("rows");
    assert_eq!(batches(&mut client, "acme"), [300]);
    check_shown(&mut client, 300);
    let ids: Vec<i64> = column(&mut client, "SELECT id - min(id) OVER () FROM shown ORDER BY id");
    assert_eq!(ids, (0..300).collect::<Vec<i64>>());
    // What ts_ingest makes of the same events is the same.
    client
        .batch_execute("SELECT ts_ingest('acme', json_agg(ts_event(s) ORDER BY id)) FROM shown s")
        .expect("a batch");
    let compared = COLUMNS.replace("created_at, ", "");
    let sql = format!(
        "SELECT count(*) FROM (SELECT {compared} FROM tailstream.events GROUP BY {compared}, created_at HAVING count(*) % 2 = 1) d"
    );
    assert_eq!(one::<i64>(&mut client, &sql), 0);
}

#[test]
fn every_way_to_insert_many_rows_is_one_batch() {
    let database = database("ways");
    let mut client = database.connect();
    let values = (1..=100).map(|n| format!("('ways', '/v/{n}')")).collect::<Vec<_>>().join(", ");
    let insert = "INSERT INTO tailstream.log_events (org_id, path)";
    for statement in [
        format!("{insert} VALUES {values}"),
        format!("{insert} VALUES {values} RETURNING id"),
        format!("{insert} SELECT 'ways', '/s/' || n FROM generate_series(1, 100) n"),
        format!(
            "PREPARE p AS {insert} SELECT 'ways', $1 || n FROM generate_series(1, 100) n RETURNING *; EXECUTE p ('/p/')"
        ),
        format!("WITH x AS ({insert} VALUES {values} RETURNING id) SELECT count(*) FROM x"),
        "MERGE INTO tailstream.log_events USING generate_series(1, 100) n ON false
             WHEN NOT MATCHED THEN INSERT (org_id, path) VALUES ('ways', '/m/' || n)"
            .into(),
        format!("DO $$ BEGIN {insert} SELECT 'ways', '/d/' || n FROM generate_series(1, 100) n; END $$"),
    ] {
        let before = batches(&mut client, "ways").len();
        client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement:.200}: {error:?}"));
        assert_eq!(batches(&mut client, "ways")[before..], [100], "{statement:.200}");
    }
    let mut copy = client.copy_in("COPY tailstream.log_events (org_id, path) FROM STDIN").expect("COPY");
    (0..3_000).for_each(|n| writeln!(copy, "copied\t/c/{n}").expect("a row"));
    assert_eq!(copy.finish().expect("COPY"), 3_000);
    assert_eq!(batches(&mut client, "copied"), [3_000]);
    // One row for each statement: a batch each.
    (0..3).for_each(|_| client.batch_execute(&format!("{insert} VALUES ('single', '/')")).expect("a row"));
    assert_eq!(batches(&mut client, "single"), [1, 1, 1]);
    check_ledger(&mut client);
}

#[test]
fn each_org_of_a_statement_has_its_batch() {
    let database = database("mixed");
    let mut client = database.connect();
    client.batch_execute("SELECT ts_set_org_tier('org1', 'premium')").expect("a tier");
    let sql = "INSERT INTO tailstream.log_events (org_id, path, created_at)
               SELECT 'org' || n % 3, '/' || n, now() - n * interval '1 minute' FROM generate_series(0, 599) n RETURNING id, path, org_id";
    let rows = client.query(sql, &[]).expect("rows");
    // Those older than three hours are kept of one org only.
    let old = (0..600).filter(|n| *n > 180 && n % 3 != 1).count();
    assert!((599 - old..=600 - old).contains(&rows.len()), "{} rows", rows.len());
    for row in &rows {
        let found = "SELECT path, org_id FROM tailstream.events WHERE id = $1";
        let event = client.query_one(found, &[&row.get::<_, i64>(0)]).expect("the event");
        let [path, org] = [1, 2].map(|at| row.get::<_, String>(at));
        assert_eq!((event.get::<_, String>(0), event.get::<_, String>(1)), (path, org));
    }
    for org in ["org0", "org1", "org2"] {
        assert_eq!(batches(&mut client, org).len(), 1, "{org}");
    }
    let counts = "SELECT sum(accepted), sum(expired), sum(accepted + expired) FROM tailstream.batches";
    let row = client.query_one(counts, &[]).expect("the ledger");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(2)), (rows.len() as i64, 600));
    check_ledger(&mut client);
}

#[test]
fn more_rows_than_a_batch_has_room_for_are_several() {
    let database = database("many");
    let mut client = database.connect();
    let sql = "SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM tailstream.events) e";
    let insert = "INSERT INTO tailstream.log_events (org_id, path) SELECT 'acme', '/' || n FROM generate_series(1, 140000) n";
    client.batch_execute(insert).expect("rows");
    let row = client.query_one(sql, &[]).expect("counts");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (140_000, 140_000));
    assert_eq!(batches(&mut client, "acme"), [65_536, 65_536, 140_000 - 2 * 65_536]);
    // Few rows of much text are not held back until the end.
    let large = "INSERT INTO tailstream.log_events (org_id, path) SELECT 'large', repeat('x', 1000000) FROM generate_series(1, 100) n";
    client.batch_execute(large).expect("rows");
    assert!(batches(&mut client, "large").len() > 1);
    check_ledger(&mut client);
}

#[test]
fn a_statement_is_stored_whole_or_not_at_all() {
    let database = database("whole");
    let mut client = database.connect();
    let insert = "INSERT INTO tailstream.log_events (org_id, path, created_at, metadata)";
    for (rows, state) in [
        ("VALUES ('acme', '/x', now(), NULL), ('acme', '/x', now() + interval '1 hour', NULL)", "22008"),
        ("VALUES ('acme', '/x', now(), NULL), ('acme', '/x', 'infinity', NULL)", "22008"),
        ("VALUES ('acme', '/x', now(), NULL), ('acme', '/x', '-infinity', NULL)", "22008"),
        ("VALUES ('acme', '/x', now(), NULL), ('', '/x', now(), NULL)", "22023"),
        ("VALUES ('acme', '/x', now(), NULL), (NULL, '/x', now(), NULL)", "23502"),
        ("VALUES ('acme', '/x', now(), NULL), (repeat('o', 256), '/x', now(), NULL)", "22023"),
        (
            "SELECT 'acme', '/x', now(), (repeat('[', 200) || repeat(']', 200))::jsonb FROM generate_series(1, 2)",
            "54001",
        ),
        (
            "SELECT 'acme', '/x', now(), NULL FROM generate_series(1, 70000) n WHERE 1 / (70000 - n) >= 0",
            "22012",
        ),
    ] {
        let result = client.batch_execute(&format!("{insert} {rows} RETURNING id"));
        let error = refused(rows, result, &[state, "22023", "54000"]);
        assert_ne!(error.message(), "", "{rows}");
        assert_eq!((stored(&mut client, "/x"), batches(&mut client, "acme").len()), (0, 0), "{rows}");
    }
    // What is expired inserts no row, and the ledger counts it.
    let rows = client.query(&format!("{insert} VALUES ('acme', '/x', '2001-01-01', NULL), ('acme', '/x', now() - interval '1 day', NULL) RETURNING id"), &[]);
    assert_eq!(rows.expect("no row").len(), 0);
    assert_eq!(one::<i32>(&mut client, "SELECT expired FROM tailstream.batches WHERE org_id = 'acme'"), 2);
    client
        .batch_execute("ALTER ROLE CURRENT_USER RESET ALL; SET tailstream.auto_register_orgs = off")
        .expect("a setting");
    refused(
        "an unknown org",
        client.batch_execute(&format!("{insert} VALUES ('nobody', '/x', now(), NULL)")),
        &["23503"],
    );
}

#[test]
fn random_rows_are_returned_as_they_are_stored() {
    let database = database("random");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE shown (LIKE tailstream.log_events)").expect("a table");
    let mut random = Random::new("random_rows_are_returned_as_they_are_stored");
    let mut sent = 0;
    for _ in 0..20 {
        let rows = random.between(1, 400);
        let insert = format!(
            "WITH x AS (INSERT INTO tailstream.log_events ({COLUMNS}) SELECT * FROM ({ROWS}) r ORDER BY md5(r::text || {rows}) LIMIT {rows}
                        RETURNING *)
             INSERT INTO shown SELECT * FROM x"
        );
        client.batch_execute(&insert).expect("rows");
        sent += rows.min(300);
    }
    check_shown(&mut client, sent);
}

#[test]
fn an_event_that_is_too_large_as_json_is_refused() {
    let database = database("too_large");
    let mut client = database.connect();
    for path in ["repeat('x', 256 << 20)", r"repeat(E'\x01', 45000000)"] {
        let insert = format!("INSERT INTO tailstream.log_events (org_id, path) SELECT 'acme', {path}");
        let error = refused(path, client.batch_execute(&insert), &["22023"]);
        assert!(error.message().contains("the event has more than"), "{error:?}");
    }
    let fits = r"INSERT INTO tailstream.log_events (org_id, path) SELECT 'acme', repeat(E'\x01', 1000000)";
    client.batch_execute(fits).expect("a large event");
    assert_eq!(batches(&mut client, "acme"), [1]);
}

#[test]
fn triggers_of_the_owner_beside_ours_are_left_alone() {
    let database = database("beside");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE audit (n int);
             CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (1); RETURN NULL; END';
             CREATE TRIGGER audit AFTER INSERT ON tailstream.log_events FOR EACH STATEMENT EXECUTE FUNCTION audit();
             INSERT INTO tailstream.log_events (org_id, path) SELECT 'acme', '/many' FROM generate_series(1, 70000)",
        )
        .expect("more rows than a batch has");
    assert_eq!(batches(&mut client, "acme"), [65_536, 70_000 - 65_536]);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM audit"), 1);
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO tailstream.log_events (org_id, path) VALUES ('globex', '/one')",
        )
        .expect("a row");
    assert_eq!(batches(&mut client, "globex"), [1]);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM audit"),
        1,
        "the owner's trigger is for origins"
    );
}
