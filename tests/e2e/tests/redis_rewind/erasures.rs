//! The stream of an erased org does not reappear, whatever data Redis comes back with.

use tailstream_devkit::Redis;
use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::rewind::{append_only_file, truncate};
use tailstream_e2e::{Mirror, Sides, Snapshot, eventually};

use crate::{command, erase, exists, reconnected, wait_until_gone};

const KEYS: &str = "tailstream:stream:{org}";

#[test]
fn an_erased_org_does_not_reappear_with_an_old_dump() {
    let mut mirror = Mirror::new("rewind-erased");
    let mut sides = mirror.sides();
    sides.ingest("acme", 100);
    sides.ingest("globex", 5);
    sides.settle(&["acme", "globex"]);
    let old = Snapshot::save(&mirror.redis);
    erase(&mut sides, "acme");
    let before = sides.status().retries;
    old.restore(&mut mirror.redis);
    let mut sides = reconnected(&mirror, before);
    wait_until_gone(&mut sides, "acme");
    sides.settle(&["globex"]);
    // The data may also be from before the present epoch, and another org may have the name by then.
    let before = sides.status().retries;
    sides.ingest("acme", 3);
    sides.settle(&["acme", "globex"]);
    old.restore(&mut mirror.redis);
    let mut sides = reconnected(&mirror, before);
    sides.settle(&["acme", "globex"]);
    assert_eq!(sides.length("acme"), 3);
}

#[test]
fn an_erasure_that_redis_had_not_written_to_disk_is_repeated() {
    let mut mirror = Mirror::with(
        "rewind-aof",
        |cluster| cluster,
        |redis| redis.append_only(true).setting("appendfsync", "everysec"),
    );
    let mut sides = mirror.sides();
    sides.ingest("acme", 100);
    sides.ingest("globex", 5);
    sides.settle(&["acme", "globex"]);
    let synced = append_only_file(&mirror.redis).metadata().expect("its length").len();
    erase(&mut sides, "acme");
    let before = sides.status().retries;
    truncate(&mut mirror.redis, synced);
    let mut sides = reconnected(&mirror, before);
    wait_until_gone(&mut sides, "acme");
    sides.settle(&["globex"]);
}

#[test]
fn an_erased_org_does_not_reappear_with_a_replica_that_lagged() {
    let mirror = Mirror::new("rewind-replica");
    let replica =
        Redis::builder("e2e-rewind-replica-2").replica_of(&mirror.redis).create().expect("a replica");
    let mut sides = mirror.sides();
    sides.ingest("acme", 100);
    sides.ingest("globex", 5);
    sides.settle(&["acme", "globex"]);
    let mut second = Sides::new(mirror.connect(), &replica, KEYS);
    eventually("the replica to have everything", PATIENCE, || {
        (second.length("acme") == 100 && second.length("globex") == 5).then_some(())
    });
    // From here on, the replica is disconnected.
    command(&mut second, &["REPLICAOF", "NO", "ONE"]);
    erase(&mut sides, "acme");
    assert!(exists(&mut second, "acme"));
    mirror.redis.kill9().expect("kill -9");
    mirror.set("tailstream.redis_url", &replica.url());
    wait_until_gone(&mut second, "acme");
    second.settle(&["globex"]);
}

#[test]
fn streams_of_the_mirror_on_a_former_server_are_removed() {
    let mirror = Mirror::new("rewind-moved");
    let mut sides = mirror.sides();
    sides.ingest("globex", 5);
    sides.settle(&["globex"]);
    // As in a restored database, whose mirror had another checkpoint on its former server.
    let former = "tailstream:mirror:1:1";
    let [ahead, broken] = ["tailstream:mirror:2:2", "tailstream:mirror:3:3"];
    sides
        .client
        .execute(
            "UPDATE tailstream.mirror SET former_checkpoint_keys = ARRAY[$1, $2, $3]",
            &[&former, &ahead, &broken],
        )
        .expect("former checkpoints");
    let registry = format!("{former}:streams");
    for (key, org) in
        [("tailstream:stream:acme", "acme"), ("other:acme", "acme"), ("tailstream:stream:globex", "globex")]
    {
        command(&mut sides, &["HSET", &registry, key, org]);
    }
    for key in ["tailstream:stream:acme", "other:acme"] {
        command(&mut sides, &["XADD", key, "1-1", "who", "somebody"]);
    }
    // The former server continued after this database was copied from it.
    command(&mut sides, &["SET", ahead, "2 epoch 1 0 1000000 0"]);
    command(&mut sides, &["HSET", &format!("{ahead}:streams"), "tailstream:stream:initech", "initech"]);
    command(&mut sides, &["XADD", "tailstream:stream:initech", "1-1", "who", "somebody"]);
    command(&mut sides, &["SET", &format!("{broken}:streams"), "no hash"]);
    let checkpoints: Vec<String> =
        redis::cmd("KEYS").arg("tailstream:mirror:*").query(&mut sides.redis).expect("KEYS");
    let is_former = |key: &str| [former, ahead, broken].iter().any(|former| key.starts_with(former));
    for checkpoint in checkpoints.iter().filter(|key| !is_former(key)) {
        command(&mut sides, &["DEL", checkpoint]);
    }
    wait_until_gone(&mut sides, "acme");
    sides.settle(&["globex"]);
    let other: bool = redis::cmd("EXISTS").arg("other:acme").query(&mut sides.redis).expect("EXISTS");
    assert!(other, "keys that this database would not make are left alone");
    assert!(exists(&mut sides, "initech"), "the streams of a mirror that goes on are left alone");
}

#[test]
fn streams_under_the_keys_of_another_template_are_removed() {
    let mirror = Mirror::new("rewind-template");
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.settle(&["acme"]);
    mirror.set("tailstream.stream_key", "new:{org}");
    let mut renamed = Sides::new(mirror.connect(), &mirror.redis, "new:{org}");
    renamed.settle(&["acme"]);
    assert!(!exists(&mut sides, "acme"));
}
