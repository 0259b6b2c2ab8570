//! A role bound to one org tries to see another's events. Every attempt may fail or show its own rows;
//! no row, notice or error may hold anything of the other org's.

mod attempts;

use std::sync::{Arc, Mutex};

use attempts::{ATTEMPTS, SETTINGS};
use postgres::{Client, NoTls, SimpleQueryMessage};
use tailstream_e2e::database::one;
use tailstream_e2e::{Database, Server, refused};

/// With the library preloaded, as it should be, and without.
fn servers() -> [Server; 2] {
    let late = Server::shared_with("isolation-late", |builder| builder.preload(&["timescaledb"]));
    [Server::shared("isolation"), late]
}

struct Spy {
    client: Client,
    heard: Arc<Mutex<String>>,
}

impl Spy {
    fn connect(database: &Database, role: &str, options: &str) -> Result<Self, postgres::Error> {
        let heard = Arc::new(Mutex::new(String::new()));
        let notices = Arc::clone(&heard);
        let mut config = database.config(role);
        config.options(options);
        config.notice_callback(move |notice| notices.lock().expect("notices").push_str(notice.message()));
        Ok(Self { client: config.connect(NoTls)?, heard })
    }

    /// Everything that a statement lets its sender know.
    fn learns(&mut self, sql: &str) -> String {
        self.heard.lock().expect("notices").clear();
        let mut known = match self.client.simple_query(sql) {
            Ok(messages) => rows(&messages),
            Err(error) => {
                assert!(!self.client.is_closed(), "{sql}: the server died: {error:?}");
                assert_ne!(error.code().map(|code| code.code()), Some("XX000"), "{sql}: {error:?}");
                format!("{error:?}")
            }
        };
        self.client.batch_execute("ROLLBACK").expect("rollback");
        known.push_str(&self.heard.lock().expect("notices"));
        assert!(!known.contains("SECRET"), "{sql} shows {known:.600}");
        known
    }
}

fn rows(messages: &[SimpleQueryMessage]) -> String {
    let mut all = String::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            (0..row.len()).for_each(|column| all.push_str(row.get(column).unwrap_or("NULL")));
        }
    }
    all
}

/// A database where a role is bound to acme and may make what helps it to peek.
fn prepare(server: &Server, name: &str) -> (Database, String) {
    let database = Database::new(server, name);
    let role = database.login_role("bound", &["tailstream_reader", "tailstream_writer"]);
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            r#"SELECT ts_ingest('other', (SELECT json_agg(json_build_object('path', '/SECRET' || n, 'k', 'SECRET', 'host', 'SECRET',
                          'ts', now() - n * interval '1 second')) FROM generate_series(1, 300) n));
               SELECT ts_ingest('acme', (SELECT json_agg(json_build_object('path', '/OWN' || n, 'k', '7',
                          'ts', now() - n * interval '1 second')) FROM generate_series(1, 300) n));
               ANALYZE tailstream.events;
               GRANT CREATE ON SCHEMA public TO {role};
               SET ROLE {role};
               CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
                   'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';
               CREATE FUNCTION leak2(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS
                   'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';
               CREATE OPERATOR ~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = leak2);
               CREATE TABLE mine (path text);
               CREATE VIEW early AS SELECT * FROM tailstream.log_events;
               CREATE VIEW early_replay AS SELECT * FROM ts_replay('other', now() - interval '1 hour', now());
               CREATE FUNCTION early_atomic() RETURNS SETOF text LANGUAGE sql
                   BEGIN ATOMIC SELECT path FROM tailstream.log_events WHERE leak(path); END;
               CREATE FUNCTION early_text() RETURNS SETOF text LANGUAGE sql
                   AS 'SELECT path FROM tailstream.log_events WHERE leak(path)';
               RESET ROLE;
               ALTER ROLE {role} SET tailstream.org = 'acme'"#
        ))
        .expect("the scene");
    (database, role)
}

#[test]
fn no_query_shows_another_orgs_rows() {
    for server in servers() {
        let (database, role) = prepare(&server, "peeking");
        let mut spy = Spy::connect(&database, &role, "").expect("a connection");
        // Where the library is not preloaded, the first statement that needs it is refused.
        spy.learns("SELECT * FROM tailstream.log_events");
        let mut seen = 0;
        for settings in SETTINGS {
            spy.client.batch_execute(settings).expect("settings");
            for source in [
                "tailstream.log_events",
                "tailstream.own_log_events",
                "ts_replay('acme', now() - interval '1 hour', now())",
                "ts_replay('other', now() - interval '1 hour', now())",
                "early",
                "early_replay",
            ] {
                for attempt in ATTEMPTS {
                    let table = if source.contains('(') { "tailstream.log_events" } else { source };
                    let sql = attempt
                        .replace("{s}", source)
                        .replace("{t}", table)
                        .replace("{q}", &source.replace('\'', "''"));
                    let known = spy.learns(&sql);
                    seen += usize::from(known.contains("OWN"));
                    let own = ["tailstream.log_events", "tailstream.own_log_events"].contains(&source);
                    let must_work = [ATTEMPTS[0], ATTEMPTS[1]].contains(attempt);
                    if own && must_work {
                        assert!(known.contains("/OWN300"), "{sql} shows {known:.300}");
                    }
                }
            }
            for sql in [
                "SELECT early_atomic()",
                "SELECT early_text()",
                "SELECT * FROM early_atomic()",
                "SELECT * FROM early_text()",
                "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE schemaname LIKE '%timescale%' OR schemaname = 'tailstream'",
                "TABLE tailstream.events",
                "TABLE tailstream.batches",
                "TABLE tailstream.orgs",
                "TABLE tailstream.rejected_events",
            ] {
                spy.learns(sql);
            }
        }
        assert!(seen > 300, "only {seen} attempts saw their own rows: the test sees nothing");
    }
}

#[test]
fn beginning_a_transaction_does_not_unbind() {
    for server in servers() {
        let (database, role) = prepare(&server, "beginning");
        for options in ["", "-c tailstream.org=nobody"] {
            for begin in ["BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"] {
                // Refused at once is as good as having no effect.
                let Ok(mut spy) = Spy::connect(&database, &role, options) else { continue };
                // This loads the library where it is not preloaded, and asks for nothing that is bound.
                spy.client.batch_execute("SELECT ts_version()").expect("the version");
                spy.client.batch_execute(begin).expect(begin);
                let orgs = "SELECT string_agg(DISTINCT org_id, ',') FROM tailstream.log_events";
                assert_eq!(one::<Option<String>>(&mut spy.client, orgs).as_deref(), Some("acme"));
            }
        }
    }
}

#[test]
fn a_session_cannot_unbind_itself() {
    for server in servers() {
        let (database, role) = prepare(&server, "unbinding");
        let orgs = "SELECT string_agg(DISTINCT org_id, ',') FROM tailstream.log_events";
        for options in ["", "-c tailstream.org=other", "-c tailstream.org=", "-c TailStream.Org=other"] {
            // Refused at once is as good as having no effect.
            let Ok(mut spy) = Spy::connect(&database, &role, options) else { continue };
            for attempt in [
                "SELECT 1",
                "SET tailstream.org = 'other'",
                "SET SESSION tailstream.org = ''",
                "BEGIN; SET LOCAL tailstream.org = 'other'",
                "RESET tailstream.org",
                "RESET ALL",
                "DISCARD ALL",
                "SET tailstream.org TO DEFAULT",
                "LOAD 'tailstream'",
                "SELECT set_config('tailstream.org', 'other', false)",
                "SELECT set_config('tailstream.org', '', true)",
                "UPDATE pg_settings SET setting = 'other' WHERE name = 'tailstream.org'",
                "SET SESSION AUTHORIZATION DEFAULT",
                "SET ROLE tailstream_reader",
                "RESET ROLE",
                "SET ROLE NONE",
                "SET search_path = pg_temp, public",
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET tailstream.org = 'other' AS 'SELECT 1'; SELECT f()",
            ] {
                spy.learns(&format!("{attempt}; SELECT * FROM tailstream.log_events WHERE leak(path)"));
                let _ = spy.client.batch_execute(attempt);
                let _ = spy.client.batch_execute("ROLLBACK");
                spy.learns("SELECT * FROM tailstream.log_events WHERE leak(path)");
                spy.client.batch_execute("RESET ROLE").expect("RESET ROLE");
                let bound: Option<String> = one(&mut spy.client, "SELECT tailstream.bound_org()");
                assert_eq!(bound.as_deref(), Some("acme"), "{options} {attempt}");
                assert_eq!(
                    one::<Option<String>>(&mut spy.client, orgs).as_deref(),
                    Some("acme"),
                    "{options} {attempt}"
                );
            }
            for change in [
                format!("ALTER ROLE {role} SET tailstream.org = 'other'"),
                format!("ALTER ROLE {role} RESET tailstream.org"),
            ] {
                refused(&change, spy.client.batch_execute(&change), &["42501"]);
            }
            let all = format!("ALTER ROLE {role} RESET ALL");
            let _ = spy.client.batch_execute(&all);
            let mut next = Spy::connect(&database, &role, "").expect("a connection");
            next.learns("SELECT 1 FROM tailstream.log_events");
            let bound: Option<String> = one(&mut next.client, "SELECT tailstream.bound_org()");
            assert_eq!(bound.as_deref(), Some("acme"), "after {all}");
        }
    }
}

#[test]
fn functions_refuse_another_org_and_everything_that_is_for_all() {
    for server in servers() {
        let (database, role) = prepare(&server, "refusing");
        let admin = database.login_role("admin", &["tailstream_admin"]);
        let bind = format!("ALTER ROLE {admin} SET tailstream.org = 'acme'");
        database.connect().batch_execute(&bind).expect("a bound admin");
        let mut client = database.connect_as(&role);
        for call in [
            "SELECT * FROM ts_replay('other', now() - interval '1 hour', now())",
            "SELECT ts_replay_window('other')",
            "SELECT * FROM ts_org('other')",
            "SELECT ts_ingest('other', '{}')",
            "SELECT ts_ingest_ndjson('other', '{}')",
            "INSERT INTO tailstream.log_events (org_id) VALUES ('other')",
            "SELECT ts_ingest('ACME', '{}')",
            "SELECT ts_ingest('acme ', '{}')",
        ] {
            refused(call, client.batch_execute(call), &["42501"]);
        }
        client
            .batch_execute("INSERT INTO tailstream.log_events (path) VALUES ('/mine')")
            .expect("its own org by default");
        client
            .batch_execute("SELECT ts_ingest('acme', '{}'), ts_replay_window('acme')")
            .expect("its own org");
        assert_eq!(
            one::<String>(&mut client, "SELECT org_id FROM tailstream.log_events WHERE path = '/mine'"),
            "acme"
        );
        let mut client = database.connect_as(&admin);
        for call in [
            "ts_apply_retention()",
            "ts_retention_preview()",
            "ts_create_tier('x', '1 day')",
            "ts_alter_tier('standard', '1 day')",
            "ts_drop_tier('premium')",
            "ts_set_org_tier('acme', 'premium')",
            "ts_erase_org('acme')",
            "ts_health()",
            "ts_schedule_retention()",
            "ts_unschedule_retention()",
            "ts_set_org_tier('other', 'premium')",
            "ts_erase_org('other')",
        ] {
            refused(call, client.batch_execute(&format!("SELECT {call}")), &["42501"]);
        }
    }
}

#[test]
fn plans_made_before_a_session_was_bound_are_made_anew() {
    for server in servers() {
        let (database, role) = prepare(&server, "pooled");
        let mut pool = Spy::connect(&database, "postgres", "").expect("a connection");
        let client = &mut pool.client;
        client.batch_execute("LOAD 'tailstream'").expect("LOAD");
        let as_role = |org: &str| format!("RESET ROLE; SET tailstream.org = '{org}'; SET ROLE {role}");
        client
            .batch_execute(&format!(
                "{}; PREPARE a AS SELECT path FROM tailstream.log_events WHERE leak(path);
                 PREPARE b AS SELECT path FROM ts_replay('other', now() - interval '1 hour', now()) WHERE leak(path);
                 CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE plpgsql AS
                     'BEGIN RETURN (SELECT count(*) FROM tailstream.log_events WHERE leak(path)); END'",
                as_role("")
            ))
            .expect("plans of an unbound session");
        let uses = ["EXECUTE a", "EXECUTE b", "SELECT pg_temp.f()", "EXPLAIN ANALYZE EXECUTE a"];
        for mode in ["auto", "force_generic_plan"] {
            client.batch_execute(&format!("SET plan_cache_mode = {mode}; {}", as_role(""))).expect("unbound");
            for sql in uses {
                for _ in 0..7 {
                    client.simple_query(sql).expect("an unbound use");
                }
            }
            client.batch_execute(&as_role("acme")).expect("bound");
            for sql in uses {
                for _ in 0..7 {
                    pool.heard.lock().expect("notices").clear();
                    let known = match client.simple_query(sql) {
                        Ok(messages) => rows(&messages),
                        Err(error) => format!("{error:?}"),
                    };
                    let heard = pool.heard.lock().expect("notices").clone();
                    assert!(
                        !known.contains("SECRET") && !heard.contains("SECRET"),
                        "{sql}: {known:.300} {heard:.300}"
                    );
                }
            }
        }
    }
}
