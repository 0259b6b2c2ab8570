//! Redis with TLS.

use tailstream_devkit::Redis;
use tailstream_e2e::Mirror;

use crate::{check_log, endure, wait_for_failure};

#[test]
fn a_server_with_an_untrusted_certificate_is_refused() {
    let mirror = Mirror::with("redis-tls", |cluster| cluster, |redis| redis.tls(true).password("secret"));
    let stranger = Redis::builder("e2e-redis-tls-2").tls(true).create().expect("a Redis server");
    let path = |redis: &Redis| redis.ca_file().expect("a CA").to_str().expect("a path").to_owned();
    let mut sides = mirror.sides();
    // No certificate authority is configured, and the system's do not include this one.
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
    // Connects without TLS to a port that requires it, and with TLS to one without.
    let plain = mirror.redis.url_with_password().replace("rediss", "redis");
    mirror.set("tailstream.redis_timeout", "1s");
    mirror.set("tailstream.redis_url", &plain);
    endure(&mut sides, "");
    mirror.set("tailstream.redis_url", &mirror.redis.url_with_password());
    sides.settle(&["acme", "globex"]);
    check_log(&mirror, 8);
}
