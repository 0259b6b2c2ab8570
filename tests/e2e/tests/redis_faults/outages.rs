//! Redis is down, does not answer, or comes back with less data than it had.

use std::time::{Duration, Instant};

use tailstream_e2e::database::one;
use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, eventually};

use crate::{check_log, command, endure, wait_for};

const ORGS: [&str; 2] = ["acme", "globex"];

fn epoch(mirror: &Mirror) -> String {
    one(&mut mirror.connect(), "SELECT epoch FROM tailstream.mirror")
}

#[test]
fn a_redis_that_is_down_at_the_start_receives_all_events_later() {
    let mut mirror = Mirror::new("redis-late");
    let mut sides = mirror.sides();
    mirror.redis.kill9().expect("kill -9");
    mirror.cluster.restart().expect("a restart");
    sides.client = mirror.connect();
    endure(&mut sides, "refused");
    mirror.redis.start().expect("Redis");
    sides.redis = mirror.redis.connect().expect("a connection");
    sides.settle(&ORGS);
    check_log(&mirror, 2);
}

#[test]
fn an_uncommitted_second_request_blocks_no_other_org() {
    let mirror = Mirror::new("asked-again");
    let (mut sides, mut admin) = (mirror.sides(), mirror.connect());
    sides.ingest("acme", 20);
    sides.settle(&["acme"]);
    mirror.redis.pause().expect("SIGSTOP");
    let again = "SELECT ts_set_mirror('acme', true, '1 hour')";
    admin.batch_execute(again).expect("a backfill");
    admin.batch_execute(&format!("BEGIN; {again}")).expect("the same again");
    mirror.redis.resume().expect("SIGCONT");
    // The stream is written, but the end of its resync cannot be recorded.
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        sides.ingest("globex", 3);
        sent += 3;
        eventually("another org's events", PATIENCE, || (sides.length("globex") == sent).then_some(()));
    }
    assert_eq!(sides.length("acme"), 20);
    admin.batch_execute("COMMIT").expect("commit");
    sides.ingest("acme", 1);
    sides.settle(&ORGS);
}

#[test]
fn uncommitted_requests_block_neither_a_new_epoch_nor_an_org_set_aside() {
    let mirror = Mirror::new("asked-open");
    let (mut sides, mut admin) = (mirror.sides(), mirror.connect());
    for org in ["acme", "globex", "quiet"] {
        sides.ingest(org, 20);
    }
    sides.settle(&["acme", "globex", "quiet"]);
    admin
        .batch_execute(
            "BEGIN; SELECT ts_set_mirror('acme', true, '1 hour'), ts_set_org_tier('globex', 'premium'),
                           ts_alter_tier('standard', stream_entries => 1000000)",
        )
        .expect("requests");
    command(&mut sides, &["FLUSHALL"]);
    wait_for(&mut sides, &[("acme", 20), ("globex", 20), ("quiet", 20)]);
    // Both fail, which shows with their next events.
    for org in ["acme", "globex"] {
        let key = sides.key(org);
        command(&mut sides, &["DEL", &key]);
        command(&mut sides, &["SET", &key, "not a stream"]);
        sides.ingest(org, 1);
    }
    sides.ingest("quiet", 1);
    wait_for(&mut sides, &[("quiet", 21)]);
    for org in ["acme", "globex"] {
        let key = sides.key(org);
        command(&mut sides, &["DEL", &key]);
    }
    wait_for(&mut sides, &[("acme", 21), ("globex", 21)]);
    admin.batch_execute("COMMIT").expect("commit");
    sides.settle(&["acme", "globex", "quiet"]);
}

#[test]
fn a_redis_that_lost_everything_gets_all_streams_again() {
    let mut mirror = Mirror::new("redis-empty");
    let mut sides = mirror.sides();
    sides.ingest("acme", 300);
    sides.ingest("globex", 1_200);
    sides.ingest("quiet", 1);
    sides.settle(&["acme", "globex", "quiet"]);
    let before = epoch(&mirror);
    mirror.redis.lose_data().expect("loss");
    endure(&mut sides, "");
    mirror.redis.start().expect("Redis");
    sides.redis = mirror.redis.connect().expect("a connection");
    sides.settle(&["acme", "globex", "quiet"]);
    assert_ne!(epoch(&mirror), before);
    assert!(sides.status().entries_resent >= 1_501, "what is sent for the second time is counted");
    check_log(&mirror, 3);
}

#[test]
fn a_redis_that_kept_its_data_is_continued_from_its_checkpoint() {
    let mut mirror = Mirror::with(
        "redis-kept",
        |cluster| cluster,
        |redis| redis.append_only(true).setting("appendfsync", "always"),
    );
    let mut sides = mirror.sides();
    sides.ingest("acme", 1_500);
    sides.settle(&["acme"]);
    let (before, resent) = (epoch(&mirror), sides.status().entries_resent);
    mirror.redis.kill9().expect("kill -9");
    endure(&mut sides, "");
    mirror.redis.start().expect("Redis");
    sides.redis = mirror.redis.connect().expect("a connection");
    sides.settle(&ORGS);
    assert_eq!(epoch(&mirror), before, "nothing had to be made again");
    assert_eq!(sides.status().entries_resent, resent);
    check_log(&mirror, 3);
}

#[test]
fn a_flushed_redis_gets_all_streams_again_without_new_events() {
    let mirror = Mirror::new("redis-flushed");
    let mut sides = mirror.sides();
    sides.ingest("acme", 700);
    sides.ingest("globex", 5);
    sides.settle(&ORGS);
    command(&mut sides, &["FLUSHALL"]);
    sides.settle(&ORGS);
    // The same happens while events are being sent.
    for round in 0..20 {
        sides.ingest("acme", 200);
        if round % 5 == 0 {
            command(&mut sides, &["FLUSHALL"]);
        }
    }
    sides.settle(&ORGS);
}

#[test]
fn the_mirror_recovers_from_a_deleted_or_changed_checkpoint() {
    let mirror = Mirror::new("redis-checkpoint");
    let mut sides = mirror.sides();
    sides.ingest("acme", 300);
    sides.settle(&["acme"]);
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg("tailstream:mirror:*").query(&mut sides.redis).expect("KEYS");
    keys.sort();
    let [checkpoint, registry] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!(*registry, format!("{checkpoint}:streams"));
    for change in [
        &["DEL", checkpoint][..],
        &["SET", checkpoint, "nonsense"],
        &["SET", checkpoint, "2 x 1 0 999999 0"],
        &["DEL", registry],
        &["HSET", registry, "", "nonsense"],
        &["HDEL", registry, "tailstream:stream:acme"],
    ] {
        command(&mut sides, change);
        sides.ingest("acme", 3);
        sides.settle(&["acme"]);
    }
    // A list in its place is neither a checkpoint nor a registry.
    for key in [checkpoint, registry] {
        command(&mut sides, &["DEL", key]);
        command(&mut sides, &["RPUSH", key, "x"]);
        sides.ingest_promptly("acme", 3);
        command(&mut sides, &["DEL", key]);
        sides.settle(&["acme"]);
    }
}

#[test]
fn a_redis_that_does_not_answer_blocks_no_session() {
    let mirror = Mirror::with(
        "redis-paused",
        |cluster| cluster.setting("tailstream.redis_timeout", "500ms"),
        |redis| redis,
    );
    let mut sides = mirror.sides();
    sides.ingest("acme", 100);
    sides.settle(&["acme"]);
    for _ in 0..2 {
        mirror.redis.pause().expect("SIGSTOP");
        sides.ingest_promptly("acme", 1_500);
        endure(&mut sides, "no answer within tailstream.redis_timeout");
        mirror.redis.resume().expect("SIGCONT");
        sides.settle(&ORGS);
    }
    check_log(&mirror, 4);
}
