//! A replica takes over, with or without the last entries.

use tailstream_devkit::Redis;
use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Sides, eventually};

use crate::{check_log, command, endure};

const KEYS: &str = "tailstream:stream:{org}";
const ORGS: [&str; 2] = ["acme", "globex"];

fn replica(mirror: &Mirror, name: &str) -> Redis {
    Redis::builder(&format!("e2e-{name}")).replica_of(&mirror.redis).create().expect("a replica")
}

/// Waits until the replica has its primary's entries of the org.
fn wait_for_replica(primary: &mut Sides, replica: &mut Sides, org: &str) {
    eventually("the replica to have everything", PATIENCE, || {
        (primary.length(org) == replica.length(org)).then_some(())
    });
}

#[test]
fn a_replica_is_written_to_after_its_promotion() {
    let mirror = Mirror::new("replica-promoted");
    let replica = replica(&mirror, "replica-promoted-2");
    let mut sides = mirror.sides();
    sides.ingest("acme", 300);
    sides.settle(&["acme"]);
    let mut second = Sides::new(mirror.connect(), &replica, KEYS);
    wait_for_replica(&mut sides, &mut second, "acme");
    let resent = sides.status().entries_resent;
    mirror.set("tailstream.redis_url", &replica.url());
    second.ingest_promptly("acme", 3);
    endure(&mut second, "READONLY");
    command(&mut second, &["REPLICAOF", "NO", "ONE"]);
    second.settle(&ORGS);
    assert_eq!(second.status().entries_resent, resent, "the replica had everything");
    check_log(&mirror, 1);
}

#[test]
fn a_replica_that_lacks_the_last_entries_gets_them() {
    let mirror = Mirror::new("replica-behind");
    let replica = replica(&mirror, "replica-behind-2");
    let mut sides = mirror.sides();
    sides.ingest("acme", 1_300);
    sides.ingest("quiet", 2);
    sides.settle(&["acme", "quiet"]);
    let mut second = Sides::new(mirror.connect(), &replica, KEYS);
    wait_for_replica(&mut sides, &mut second, "acme");
    // From here on, the replica is disconnected.
    command(&mut second, &["REPLICAOF", "NO", "ONE"]);
    for _ in 0..5 {
        sides.ingest("acme", 700);
        sides.ingest("globex", 3);
    }
    sides.settle(&["acme", "globex", "quiet"]);
    assert!(second.length("acme") < sides.length("acme"));
    mirror.redis.kill9().expect("kill -9");
    second.ingest_promptly("acme", 5);
    mirror.set("tailstream.redis_url", &replica.url());
    second.settle(&["acme", "globex", "quiet"]);
    let epochs = mirror.log_lines("begins a new epoch").len();
    assert_eq!(epochs, 1, "only what was missing had to be sent");
}

#[test]
fn a_mirror_that_alternates_between_two_servers_leaves_both_correct() {
    let mirror = Mirror::new("replica-swapped");
    let other = Redis::builder("e2e-replica-swapped-2").create().expect("a Redis server");
    let mut first = mirror.sides();
    let mut second = Sides::new(mirror.connect(), &other, KEYS);
    for round in 0..2 {
        mirror.set("tailstream.redis_url", &mirror.redis.url());
        first.ingest("acme", 300 + round);
        first.settle(&["acme"]);
        mirror.set("tailstream.redis_url", &other.url());
        second.ingest("acme", 200 + round);
        second.settle(&["acme"]);
    }
}
