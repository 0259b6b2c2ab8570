//! Events that are purged before or after they were mirrored.

use tailstream_devkit::event::{now_micros, rfc3339};
use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::eventually;
use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Sides};

use crate::database;

/// Ingests one batch with two current events, and between them one from two and a half hours ago.
fn old_among_new(sides: &mut Sides, org: &str) {
    let (old, new) = (rfc3339(now_micros() - 9_000_000_000), rfc3339(now_micros()));
    let json = format!(r#"[{{"created_at":"{new}"}},{{"created_at":"{old}"}},{{"created_at":"{new}"}}]"#);
    ingest(&mut sides.client, org, &json, None).expect("ingest");
}

#[test]
fn a_stream_begins_after_events_that_were_purged_before_they_were_mirrored() {
    let mirror = Mirror::new("mirror-purged");
    let mut sides = mirror.sides();
    mirror.set("tailstream.redis_url", "redis://127.0.0.1:1");
    sides.wait_for_state("failing");
    let old = format!(r#"[{{"created_at":"{}"}}]"#, rfc3339(now_micros() - 9_000_000_000));
    for org in ["acme", "globex"] {
        ingest(&mut sides.client, org, &old, None).expect("ingest");
        old_among_new(&mut sides, org);
        sides.ingest(org, 2);
    }
    sides.client.batch_execute("SELECT ts_alter_tier('standard', '1 hour')").expect("a shorter retention");
    let dropped = "SELECT sum(chunks_dropped) FROM ts_apply_retention()";
    assert_eq!(one::<i64>(&mut sides.client, dropped), 1);
    mirror.set("tailstream.redis_url", &mirror.redis.url());
    sides.settle(&[]);
    for org in ["acme", "globex"] {
        assert_eq!(sides.length(org), 3, "what comes behind the purged event of the second batch");
        assert_eq!(sides.verify(org), [("matching".to_owned(), 3)]);
    }
}

#[test]
fn an_event_purged_from_the_table_stays_in_the_stream_as_expired() {
    let mirror = Mirror::new("mirror-outlived");
    let mut sides = mirror.sides();
    old_among_new(&mut sides, "acme");
    sides.settle(&["acme"]);
    sides.client.batch_execute("SELECT ts_alter_tier('standard', '1 hour')").expect("a shorter retention");
    sides.client.batch_execute("SELECT * FROM ts_apply_retention()").expect("the purge");
    assert_eq!(sides.length("acme"), 3);
    let findings = sides.verify("acme");
    assert_eq!(findings, [("matching".to_owned(), 2), ("expired".to_owned(), 1)]);
}

#[test]
fn an_erased_org_has_no_stream_and_can_be_registered_again() {
    let (_database, mut sides) = database("erased");
    sides.ingest("gone", 5);
    sides.ingest("stays", 5);
    sides.settle(&["gone", "stays"]);
    sides.client.batch_execute("SELECT ts_erase_org('gone')").expect("ts_erase_org");
    let key = sides.key("gone");
    eventually("the stream to be removed", PATIENCE, || {
        let there: bool = redis::cmd("EXISTS").arg(&key).query(&mut sides.redis).expect("EXISTS");
        (!there).then_some(())
    });
    sides.settle(&["stays"]);
    let batch = sides.ingest("gone", 2);
    sides.settle(&["gone", "stays"]);
    assert!(sides.stream("gone").iter().all(|entry| entry.event_id >> 16 == batch));
    // The org is erased directly after batches of it.
    for _ in 0..5 {
        sides.ingest("gone", 3);
        sides.client.batch_execute("SELECT ts_erase_org('gone')").expect("ts_erase_org");
    }
    let last = sides.ingest("gone", 1);
    sides.settle(&["gone", "stays"]);
    assert_eq!(sides.stream("gone").iter().map(|entry| entry.event_id >> 16).collect::<Vec<_>>(), [last]);
}

#[test]
fn an_erasure_in_a_prepared_transaction_removes_the_stream_at_commit_prepared() {
    let (_database, mut sides) = database("prepared");
    for round in 0..5 {
        let org = format!("gone-{round}");
        sides.ingest(&org, 5);
        sides.settle(&[org.as_str()]);
        let erase = format!("BEGIN; SELECT ts_erase_org('{org}'); PREPARE TRANSACTION 'erasure'");
        sides.client.batch_execute(&erase).expect("the first phase");
        assert_eq!(sides.length(&org), 5);
        sides.client.batch_execute("COMMIT PREPARED 'erasure'").expect("the second phase");
        // No other event wakes the mirror.
        eventually("the stream to be removed", PATIENCE, || (sides.length(&org) == 0).then_some(()));
    }
}
