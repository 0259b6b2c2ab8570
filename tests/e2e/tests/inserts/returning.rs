//! RETURNING for whoever may only write, and nothing else to read.

use postgres::{Client, SimpleQueryMessage};
use tailstream_e2e::database::one;
use tailstream_e2e::{Database, refused};

use crate::database;

/// An event of others, a role that may only write and can make things of its own.
fn scene(name: &str) -> (Database, String) {
    let database = database(name);
    let writer = database.login_role("writer", &["tailstream_writer"]);
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            r#"SELECT ts_ingest('other', (SELECT json_agg(json_build_object('path', '/SECRET' || n, 'k', 'SECRET')) FROM generate_series(1, 50) n));
               SELECT ts_ingest('acme', '[{{"path":"/SECRET"}}]');
               ANALYZE tailstream.events;
               GRANT CREATE ON SCHEMA public TO {writer};
               CREATE VIEW public.shared AS SELECT * FROM tailstream.log_events;
               GRANT SELECT ON public.shared TO {writer};
               SET ROLE {writer};
               CREATE FUNCTION leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
                   'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';
               CREATE TABLE mine (path text);
               CREATE VIEW own AS SELECT * FROM tailstream.log_events;
               RESET ROLE"#
        ))
        .expect("the scene");
    (database, writer)
}

#[test]
fn a_writer_gets_back_what_it_inserts() {
    let (database, writer) = scene("orm");
    let mut client = database.connect_as(&writer);
    let insert = "INSERT INTO tailstream.log_events (org_id, path) VALUES ('acme', '/w')";
    for returning in [
        "id",
        "*",
        "id, created_at, method, status, metadata",
        "log_events",
        "row_to_json(log_events)",
        "id + 1",
    ] {
        let rows = client.query(&format!("{insert} RETURNING {returning}"), &[]);
        assert_eq!(rows.map(|rows| rows.len()).map_err(|error| error.to_string()), Ok(1), "{returning}");
    }
    let with = format!("WITH x AS ({insert} RETURNING *) SELECT id FROM x");
    assert!(one::<i64>(&mut client, &with) > 0);
    assert_eq!(
        one::<i64>(&mut database.connect(), "SELECT count(*) FROM tailstream.events WHERE path = '/w'"),
        7
    );
    // A bound one as well.
    let bind = format!("ALTER ROLE {writer} SET tailstream.org = 'acme'");
    database.connect().batch_execute(&bind).expect("a bound role");
    let mut client = database.connect_as(&writer);
    let insert = "INSERT INTO tailstream.log_events (path) VALUES ('/w') RETURNING org_id";
    assert_eq!(one::<String>(&mut client, insert), "acme");
}

const ATTEMPTS: &[&str] = &[
    "SELECT * FROM {s}",
    "SELECT id FROM {s}",
    "SELECT 1 FROM {s}",
    "SELECT count(*) FROM {s}",
    "SELECT EXISTS (SELECT FROM {s})",
    "SELECT max(path) FROM {s}",
    "SELECT FROM {s} WHERE leak(path)",
    "SELECT path FROM {s} WHERE org_id = 'other' AND created_at > now() - interval '1 hour' AND leak(path) LIMIT 1",
    "SELECT {r}.path FROM generate_series(1, 2) LEFT JOIN {s} ON leak(path)",
    "SELECT (SELECT string_agg(path, ',') FROM {s})",
    "TABLE {s}",
    "COPY (SELECT * FROM {s}) TO STDOUT",
    "EXPLAIN SELECT * FROM {s}",
    "EXPLAIN ANALYZE SELECT * FROM {s}",
    "EXPLAIN (GENERIC_PLAN) SELECT * FROM {s} WHERE path = $1",
    "BEGIN; DECLARE c CURSOR FOR SELECT path FROM {s}; FETCH ALL FROM c",
    "CREATE TABLE copy AS SELECT * FROM {s}",
    "CREATE MATERIALIZED VIEW copy AS SELECT * FROM {s}",
    "SELECT table_to_xml('{s}', true, false, '')",
    "SELECT query_to_xml('SELECT * FROM {s}', true, false, '')",
    "PREPARE p AS SELECT path FROM {s}; EXECUTE p",
    "DO 'DECLARE p text; BEGIN SELECT path INTO p FROM {s}; RAISE NOTICE ''%'', p; END'",
    "UPDATE {s} SET path = '/x' WHERE leak(path)",
    "DELETE FROM {s} WHERE leak(path)",
    "INSERT INTO mine SELECT path FROM {s} RETURNING path",
    "UPDATE mine SET path = s.path FROM {s} s RETURNING mine.path",
    "DELETE FROM mine USING {s} s WHERE leak(s.path)",
    "INSERT INTO tailstream.log_events (org_id) VALUES ('acme') RETURNING (SELECT string_agg(path, ',') FROM {s})",
    "INSERT INTO tailstream.log_events (org_id, path) SELECT 'acme', path FROM {s} RETURNING path",
    "WITH x AS (SELECT * FROM {s}) INSERT INTO tailstream.log_events SELECT * FROM x RETURNING path",
    "INSERT INTO tailstream.log_events (org_id) VALUES ('acme') ON CONFLICT DO UPDATE SET path = excluded.path RETURNING path",
    "MERGE INTO tailstream.log_events t USING (VALUES ('acme')) v (o) ON t.org_id = 'other' AND leak(t.path)
         WHEN NOT MATCHED THEN INSERT (org_id) VALUES (v.o) RETURNING t.path",
    "CREATE FUNCTION below(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
         'BEGIN RAISE NOTICE ''%'', $1; RETURN $1 < $2; END';
     CREATE OPERATOR <<<# (LEFTARG = text, RIGHTARG = text, FUNCTION = below, RESTRICT = scalarltsel);
     EXPLAIN SELECT 1 FROM {s} WHERE path <<<# '/z'",
    "SELECT s FROM {s} s FOR UPDATE",
    "SELECT * FROM {s} TABLESAMPLE SYSTEM (100)",
    "SELECT a.path FROM {s} a JOIN {s} b USING (id)",
    "SELECT path FROM {s} UNION ALL SELECT path FROM mine",
    "SELECT l.path FROM mine, LATERAL (SELECT path FROM {s}) l",
    "SELECT ts_event(s) FROM {s} s",
    "SELECT tailstream.event_json(s) FROM {s} s",
    "CREATE FUNCTION f() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC SELECT path FROM {s}; END; SELECT f()",
];

/// Everything that a statement tells its sender.
fn learns(client: &mut Client, heard: &std::sync::Mutex<String>, sql: &str) -> (String, bool) {
    heard.lock().expect("notices").clear();
    let (mut known, failed) = match client.simple_query(sql) {
        Ok(messages) => {
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()))
                }
                _ => None,
            });
            (rows.flatten().collect::<Vec<_>>().join("|"), false)
        }
        Err(error) => {
            assert!(!client.is_closed(), "{sql}: {error:?}");
            let state = error.code().map(|code| code.code().to_owned());
            assert_ne!(state.as_deref(), Some("XX000"), "{sql}: {error:?}");
            (format!("{error:?}"), true)
        }
    };
    client.batch_execute("ROLLBACK").expect("rollback");
    known.push_str(&heard.lock().expect("notices"));
    (known, failed)
}

#[test]
fn a_writer_reads_nothing() {
    let (database, writer) = scene("blind");
    let heard = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let notices = std::sync::Arc::clone(&heard);
    let mut config = database.config(&writer);
    config.notice_callback(move |notice| notices.lock().expect("notices").push_str(notice.message()));
    let mut client = config.connect(postgres::NoTls).expect("a connection");
    for settings in
        ["SET plan_cache_mode = auto", "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"]
    {
        client.batch_execute(settings).expect("settings");
        for source in ["tailstream.log_events", "tailstream.own_log_events", "own", "shared"] {
            for attempt in ATTEMPTS {
                let name = source.rsplit('.').next().unwrap_or(source);
                let sql = attempt.replace("{s}", source).replace("{r}", name);
                let (known, failed) = learns(&mut client, &heard, &sql);
                // The attempt itself is in an error's text; what was read is not.
                assert!(!known.contains("/SECRET"), "{sql} shows {known:.600}");
                assert!(failed, "{sql}: {known}");
            }
        }
    }
    // What can be folded away must not come to rows either.
    for sql in [
        "SELECT * FROM tailstream.log_events WHERE false",
        "SELECT * FROM tailstream.log_events LIMIT 0",
        "SELECT count(*) FROM tailstream.log_events WHERE NULL",
        "SELECT relname FROM pg_class WHERE relname = 'log_events' AND reltuples > 0",
        "SELECT most_common_vals::text FROM pg_stats WHERE schemaname IN ('tailstream', '_timescaledb_internal')",
    ] {
        let (known, _) = learns(&mut client, &heard, sql);
        assert!(!known.contains("SECRET") && !known.contains("51"), "{sql} shows {known}");
    }
    let error = refused("reading", client.batch_execute("TABLE tailstream.log_events"), &["42501"]);
    assert!(error.message().contains("log_events"), "{error:?}");
}

#[test]
fn plans_of_a_reader_are_of_no_use_to_a_writer() {
    let (database, writer) = scene("pooled");
    let reader = database.login_role("reader", &["tailstream_reader"]);
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "SET ROLE {reader};
             PREPARE a AS SELECT path FROM tailstream.log_events;
             PREPARE b AS SELECT count(*) FROM tailstream.log_events;
             PREPARE c AS SELECT path FROM ts_replay('other', now() - interval '1 hour', now());
             PREPARE d AS SELECT * FROM tailstream.log_events WHERE org_id = 'other' ORDER BY created_at LIMIT 1;
             CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE plpgsql AS
                 'BEGIN RETURN (SELECT count(*) FROM tailstream.log_events); END'"
        ))
        .expect("plans");
    let uses = [
        "EXECUTE a",
        "EXECUTE b",
        "EXECUTE c",
        "EXECUTE d",
        "SELECT pg_temp.f()",
        "EXPLAIN ANALYZE EXECUTE a",
    ];
    for mode in ["auto", "force_generic_plan"] {
        client.batch_execute(&format!("SET ROLE {reader}; SET plan_cache_mode = {mode}")).expect("a mode");
        for sql in uses {
            (0..7).for_each(|_| drop(client.simple_query(sql).expect("a reader's use")));
        }
        client.batch_execute(&format!("SET ROLE {writer}")).expect("the writer");
        for sql in uses {
            refused(sql, client.simple_query(sql), &["42501"]);
        }
    }
    // The privilege may go while a plan is kept.
    client.batch_execute("RESET ROLE").expect("the owner");
    client
        .batch_execute(&format!("REVOKE tailstream_reader FROM {reader}; SET ROLE {reader}"))
        .expect("a revoke");
    for sql in uses {
        refused(sql, client.simple_query(sql), &["42501"]);
    }
}
