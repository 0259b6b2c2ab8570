//! A key that comes again with other events: the batch is refused, and nobody is told that it was stored.

use std::thread;

use tailstream_e2e::database::{ingest, one, pid, wait_until_blocked};
use tailstream_e2e::refused;

const FIRST: &str = r#"[{"path":"/1"}]"#;
const OTHER: &str = r#"[{"path":"/2"}]"#;

#[test]
fn a_known_key_with_other_events_is_refused() {
    let database = crate::database("keys_reused");
    let mut client = database.connect();
    let first = ingest(&mut client, "acme", FIRST, Some("key")).expect("the first batch");
    let spaced = FIRST.replace(':', ": ");
    for other in [OTHER, &spaced, "[]", "{}", r#"[{"status":"nonsense"}]"#, "[{\"path\":\"/1\"}] "] {
        let error = refused(other, ingest(&mut client, "acme", other, Some("key")), &["23000"]);
        let detail = error.detail().unwrap_or_default();
        assert!(error.message().contains("\"key\""), "{error}");
        assert!(detail.contains(&format!("Batch {}", first.batch_id)), "{detail}");
        assert!(error.hint().is_some(), "{error:?}");
    }
    // Another org's key is another key, and a batch without one has none.
    assert!(!ingest(&mut client, "globex", OTHER, Some("key")).expect("another org").duplicate);
    assert!(!ingest(&mut client, "acme", OTHER, None).expect("no key").duplicate);
    for format in
        ["ts_ingest('acme', $1::text::json, 'key', 'quarantine')", "ts_ingest_ndjson('acme', $1, 'key')"]
    {
        let sql = format!("SELECT batch_id, duplicate FROM {format}");
        let row = client.query_one(&sql, &[&FIRST]).expect("the same again");
        assert_eq!((row.get::<_, i64>(0), row.get(1)), (first.batch_id, true), "{format}");
    }
    // In one transaction, and under a savepoint that brings the session back.
    client
        .batch_execute("BEGIN; SELECT ts_ingest('acme', '[{}]', 'own'); SAVEPOINT s")
        .expect("a batch that is not committed");
    refused("its own", ingest(&mut client, "acme", "[{},{}]", Some("own")), &["23000"]);
    client.batch_execute("ROLLBACK TO s").expect("ROLLBACK TO");
    assert!(ingest(&mut client, "acme", "[{}]", Some("own")).expect("the same").duplicate);
    client.batch_execute("ROLLBACK").expect("ROLLBACK");
    assert!(!ingest(&mut client, "acme", OTHER, Some("own")).expect("a key that is free again").duplicate);
    let sql = "SELECT count(*) FROM tailstream.events WHERE org_id = 'acme'";
    assert_eq!(one::<i64>(&mut client, sql), 3);
}

/// The snapshot of the second transaction does not show the first batch, and its hash counts all the same.
#[test]
fn a_call_that_waited_for_the_key_compares_with_what_was_committed() {
    let database = crate::database("keys_waiting");
    database.connect().execute("SELECT ts_set_org_tier('acme', 'standard')", &[]).expect("an org");
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for (json, expected) in [(FIRST, None), (OTHER, Some("23000"))] {
            let key = format!("{isolation} {expected:?}");
            let (mut first, mut second, mut watch) =
                (database.connect(), database.connect(), database.connect());
            second
                .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1"))
                .expect("a snapshot");
            let (holder, waiter) = (pid(&mut first), pid(&mut second));
            let mut open = first.transaction().expect("a transaction");
            ingest(&mut open, "acme", FIRST, Some(&key)).expect("the first call");
            thread::scope(|scope| {
                let waiting = scope.spawn(|| ingest(&mut second, "acme", json, Some(&key)));
                wait_until_blocked(&mut watch, waiter, holder);
                open.commit().expect("commit");
                let ended = waiting.join().expect("the second call");
                match expected {
                    None => assert!(ended.expect("the same events").duplicate, "{key}"),
                    Some(state) => drop(refused(&key, ended, &[state])),
                }
            });
        }
    }
    assert_eq!(one::<i64>(&mut database.connect(), "SELECT count(*) FROM tailstream.events"), 6);
}
