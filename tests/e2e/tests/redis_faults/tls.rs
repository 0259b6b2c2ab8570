//! Redis behind TLS.

use tailstream_devkit::Redis;
use tailstream_e2e::Mirror;

use crate::{check_log, endure, wait_for_failure};

#[test]
fn who_is_not_vouched_for_is_not_talked_to() {
    let mirror = Mirror::with("redis-tls", |cluster| cluster, |redis| redis.tls(true).password("secret"));
    let stranger = Redis::builder("e2e-redis-tls-2").tls(true).create().expect("a Redis server");
    let path = |redis: &Redis| redis.ca_file().expect("a CA").to_str().expect("a path").to_owned();
    let mut sides = mirror.sides();
    // Nobody has said yet whom to trust: the system trusts no such authority.
    endure(&mut sides, "certificate");
    mirror.set("tailstream.redis_ca_file", &path(&mirror.redis));
    sides.settle(&["acme", "globex"]);
    mirror.set("tailstream.redis_ca_file", &path(&stranger));
    endure(&mut sides, "certificate");
    mirror.set("tailstream.redis_ca_file", "/nowhere/ca.crt");
    wait_for_failure(&mut sides, "/nowhere/ca.crt", 0);
    sides.ingest_promptly("acme", 2);
    mirror.set("tailstream.redis_ca_file", &path(&mirror.redis));
    sides.settle(&["acme", "globex"]);
    assert!(mirror.log_lines("terminated by signal").is_empty());
    // Without TLS to a port that wants it, and with it to one that does not.
    let plain = mirror.redis.url_with_password().replace("rediss", "redis");
    mirror.set("tailstream.redis_timeout", "1s");
    mirror.set("tailstream.redis_url", &plain);
    endure(&mut sides, "");
    mirror.set("tailstream.redis_url", &mirror.redis.url_with_password());
    sides.settle(&["acme", "globex"]);
    check_log(&mirror, 8);
}
