//! A role bound to one org looks for another's events through pages and schedules, as `isolation` does through views.

#[path = "../isolation/attempts.rs"]
mod attempts;

use std::sync::{Arc, Mutex};

use attempts::{ATTEMPTS, SETTINGS};
use postgres::{Client, NoTls, SimpleQueryMessage};
use tailstream_e2e::Database;
use tailstream_e2e::database::one;

struct Spy {
    client: Client,
    heard: Arc<Mutex<String>>,
}

impl Spy {
    fn connect(database: &Database, role: &str) -> Self {
        let heard = Arc::new(Mutex::new(String::new()));
        let notices = Arc::clone(&heard);
        let mut config = database.config(role);
        config.notice_callback(move |notice| notices.lock().expect("notices").push_str(notice.message()));
        Self { client: config.connect(NoTls).expect("a connection"), heard }
    }

    /// Everything that a statement lets its sender know.
    fn learns(&mut self, sql: &str) -> String {
        self.heard.lock().expect("notices").clear();
        let mut known = String::new();
        match self.client.simple_query(sql) {
            Ok(messages) => messages.iter().for_each(|message| show(message, &mut known)),
            Err(error) => {
                assert!(!self.client.is_closed(), "{sql}: the server died: {error:?}");
                assert_ne!(tailstream_e2e::sqlstate(&error), "XX000", "{sql}: {error:?}");
                known = format!("{error:?}");
            }
        }
        self.client.batch_execute("ROLLBACK").expect("rollback");
        known.push_str(&self.heard.lock().expect("notices"));
        assert!(!known.contains("SECRET"), "{sql} shows {known:.600}");
        known
    }
}

fn show(message: &SimpleQueryMessage, known: &mut String) {
    if let SimpleQueryMessage::Row(row) = message {
        (0..row.len()).for_each(|column| known.push_str(row.get(column).unwrap_or("NULL")));
    }
}

/// A role that is bound to acme and may make what helps it to peek, and another org's tokens.
fn prepare(database: &Database) -> (String, [String; 2]) {
    let role = database.login_role("bound", &["tailstream_reader"]);
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "SELECT ts_ingest(org, (SELECT json_agg(json_build_object('path', word || n, 'k', word, 'host', word,
                                 'ts', now() - n * interval '1 second')) FROM generate_series(1, 200) n))
             FROM (VALUES ('other', '/SECRET'), ('acme', '/OWN')) v(org, word);
             ANALYZE tailstream.events;
             GRANT CREATE ON SCHEMA public TO {role};
             SET ROLE {role};
             CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
                 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';
             CREATE FUNCTION leak2(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS
                 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';
             CREATE OPERATOR ~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = leak2);
             CREATE TABLE mine (path text);
             RESET ROLE;
             ALTER ROLE {role} SET tailstream.org = 'acme'"
        ))
        .expect("the scene");
    let tokens = [
        "ts_replay_page('other', NULL, NULL)",
        "ts_replay_schedule('other', now() - interval '1 hour', now())",
    ]
    .map(|source| one(&mut client, &format!("SELECT cursor FROM {source} LIMIT 1")));
    (role, tokens)
}

#[test]
fn no_query_shows_another_orgs_rows() {
    let database = crate::database("spying");
    let (role, [paged, scheduled]) = prepare(&database);
    let mut spy = Spy::connect(&database, &role);
    let mut seen = 0;
    let hour = "now() - interval '1 hour', now()";
    for settings in SETTINGS {
        spy.client.batch_execute(settings).expect("settings");
        for (source, own) in [
            (format!("ts_replay_schedule('acme', {hour})"), true),
            (format!("ts_replay_schedule('other', {hour})"), false),
            (format!("ts_replay_schedule('other', {hour}, after => '{scheduled}')"), false),
            (format!("ts_replay_schedule('acme', {hour}, after => '{scheduled}')"), false),
            ("ts_replay_page('acme', NULL, NULL)".to_owned(), true),
            (format!("ts_replay_page('acme', NULL, NULL, after => '{paged}')"), false),
            (format!("ts_replay_page('other', NULL, NULL, after => '{paged}')"), false),
        ] {
            for (number, attempt) in ATTEMPTS.iter().enumerate() {
                let sql = attempt
                    .replace("{s}", &source)
                    .replace("{t}", "tailstream.log_events")
                    .replace("{q}", &source.replace('\'', "''"));
                let known = spy.learns(&sql);
                seen += usize::from(known.contains("OWN"));
                assert!(!own || number > 1 || known.contains("/OWN200"), "{sql} shows {known:.300}");
            }
        }
    }
    assert!(seen > 100, "only {seen} attempts saw their own rows: the test sees nothing");
}

#[test]
fn a_schedule_planned_before_a_session_was_bound_is_planned_anew() {
    let database = crate::database("rebound");
    let (role, _) = prepare(&database);
    let mut pool = Spy::connect(&database, "postgres");
    let as_role = |org: &str| format!("RESET ROLE; SET tailstream.org = '{org}'; SET ROLE {role}");
    let hour = "now() - interval '1 hour', now()";
    for mode in ["auto", "force_generic_plan"] {
        pool.client
            .batch_execute(&format!(
                "SET plan_cache_mode = {mode}; {}; DEALLOCATE ALL;
                 PREPARE a AS SELECT path FROM ts_replay_schedule('other', {hour}) WHERE leak(path);
                 PREPARE b AS SELECT path FROM ts_replay_page('other', NULL, NULL) WHERE leak(path)",
                as_role("")
            ))
            .expect("plans of an unbound session");
        for sql in ["EXECUTE a", "EXECUTE b"] {
            for _ in 0..7 {
                pool.client.simple_query(sql).expect("an unbound use");
            }
        }
        pool.client.batch_execute(&as_role("acme")).expect("bound");
        for sql in ["EXECUTE a", "EXECUTE b"] {
            for _ in 0..7 {
                let known = pool.learns(sql);
                assert!(known.contains("42501") || !known.contains('/'), "{sql} shows {known:.300}");
            }
        }
    }
}
