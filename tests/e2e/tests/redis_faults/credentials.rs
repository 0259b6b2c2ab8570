//! The password never appears in messages, views or logs.

use std::fs;

use postgres::{Client, SimpleQueryMessage};
use tailstream_e2e::Mirror;

use crate::wait_for_failure;

const SECRETS: [&str; 4] = ["first-secret", "second-secret", "third-secret", "fourth-secret"];

/// Everything that a statement returns: rows, an error or notices.
fn answer(client: &mut Client, sql: &str) -> String {
    match client.simple_query(sql) {
        Err(error) => format!("{error:?}"),
        Ok(messages) => messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|column| row.get(column).unwrap_or_default())
                        .collect::<Vec<_>>()
                        .join(" "),
                ),
                _ => None,
            })
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

#[track_caller]
fn check_hidden(mirror: &Mirror) {
    let mut client = mirror.connect();
    client
        .batch_execute(
            "DO $$ BEGIN CREATE ROLE curious LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        )
        .expect("a role");
    client
        .batch_execute("GRANT pg_read_all_settings, pg_monitor, tailstream_admin TO curious")
        .expect("memberships");
    let looks = [
        "SHOW tailstream.redis_url",
        "SHOW ALL",
        "SELECT * FROM pg_settings",
        "SELECT current_setting('tailstream.redis_url')",
        "SELECT * FROM ts_mirror_status()",
        "SELECT * FROM ts_mirror_status('acme')",
        "SELECT * FROM ts_health()",
        "SELECT * FROM ts_metrics()",
        "SELECT * FROM ts_mirror_verify('acme')",
        "SELECT * FROM tailstream.mirror_progress()",
    ];
    for role in ["postgres", "curious"] {
        let mut client = mirror.connect();
        client.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).expect("a role");
        for look in looks {
            let said = answer(&mut client, look);
            for secret in SECRETS {
                assert!(!said.contains(secret), "{role}: {look}: {said}");
            }
        }
        if role == "curious" {
            let said = answer(&mut client, "SELECT * FROM pg_file_settings");
            assert!(said.contains("42501"), "{said}");
            let said =
                answer(&mut client, "ALTER SYSTEM SET tailstream.redis_url = 'redis://:mine@127.0.0.1'");
            assert!(said.contains("42501"), "{said}");
        }
    }
    let log = fs::read(mirror.cluster.log_path()).expect("the server's log");
    let log = String::from_utf8_lossy(&log);
    for line in log.lines() {
        assert!(SECRETS.iter().all(|secret| !line.contains(secret)), "{line}");
    }
}

#[test]
fn no_password_is_shown_or_logged_with_any_url() {
    let mirror = Mirror::with("redis-secret", |cluster| cluster, |redis| redis.password(SECRETS[0]));
    let mut sides = mirror.sides();
    sides.ingest("acme", 3);
    sides.settle(&["acme"]);
    let port = mirror.redis.port();
    check_hidden(&mirror);
    for (url, reason) in [
        (format!("redis://:{}@127.0.0.1:{port}", SECRETS[1]), ""),
        (format!("redis://ann:{}@127.0.0.1:{port}/3", SECRETS[2]), ""),
        (format!("redis://:{}@127.0.0.1:1", SECRETS[3]), "refused"),
        (format!("redis://:{}@no.such.host.invalid:1", SECRETS[3]), ""),
        (format!("redis://:{}@127.0.0.1:not-a-port", SECRETS[3]), "tailstream.redis_url"),
        (SECRETS[3].to_owned(), "tailstream.redis_url"),
        (format!("redis+unix:///nowhere?pass={}", SECRETS[3]), ""),
    ] {
        let before = sides.status().retries;
        mirror.set("tailstream.redis_url", &url);
        wait_for_failure(&mut sides, reason, before);
        sides.ingest_promptly("acme", 2);
        check_hidden(&mirror);
    }
    mirror.set("tailstream.redis_url", &mirror.redis.url_with_password());
    sides.settle(&["acme"]);
    let shown = answer(&mut mirror.connect(), "SHOW tailstream.redis_url");
    assert_eq!(shown, format!("redis://:***@127.0.0.1:{port}"));
    check_hidden(&mirror);
}
