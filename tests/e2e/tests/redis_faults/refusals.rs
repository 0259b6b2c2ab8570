//! Redis answers, but refuses writes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Sides, eventually};

use crate::{check_log, command, endure, wait_for_failure};

const ORGS: [&str; 2] = ["acme", "globex"];

#[test]
fn a_full_redis_receives_the_rest_when_it_has_memory_again() {
    let mirror = Mirror::with(
        "redis-full",
        |cluster| cluster,
        |redis| redis.setting("maxmemory-policy", "noeviction"),
    );
    let mut sides = mirror.sides();
    sides.ingest("acme", 300);
    sides.settle(&["acme"]);
    // The mirror may have started after the first events, and may then have resynced the stream with them.
    let resent = sides.status().entries_resent;
    command(&mut sides, &["CONFIG", "SET", "maxmemory", "1mb"]);
    sides.ingest_promptly("acme", 10);
    endure(&mut sides, "OOM");
    command(&mut sides, &["CONFIG", "SET", "maxmemory", "0"]);
    sides.settle(&ORGS);
    assert_eq!(sides.status().entries_resent, resent, "nothing had been taken");
    check_log(&mirror, 1);
}

/// Makes Redis save, and waits until the save has this status.
fn saved(sides: &mut Sides, status: &str) {
    command(sides, &["BGSAVE"]);
    eventually(&format!("a save that is {status}"), PATIENCE, || {
        let info: String = redis::cmd("INFO").arg("persistence").query(&mut sides.redis).expect("INFO");
        let done = info.contains("rdb_bgsave_in_progress:0");
        (done && info.contains(&format!("rdb_last_bgsave_status:{status}"))).then_some(())
    });
}

#[test]
fn a_redis_that_cannot_save_receives_the_rest_when_it_can() {
    let mirror =
        Mirror::with("redis-unsaved", |cluster| cluster, |redis| redis.setting("save", "3600 1000000"));
    let mut sides = mirror.sides();
    sides.ingest("acme", 300);
    sides.settle(&["acme"]);
    let data = mirror.redis.data_dir();
    let may_write =
        |mode| fs::set_permissions(&data, Permissions::from_mode(mode)).expect("the mode of a directory");
    may_write(0o500);
    saved(&mut sides, "err");
    sides.ingest_promptly("acme", 10);
    endure(&mut sides, "MISCONF");
    may_write(0o700);
    saved(&mut sides, "ok");
    sides.settle(&ORGS);
    check_log(&mirror, 1);
}

#[test]
fn the_mirror_retries_until_the_password_is_right() {
    let mirror = Mirror::with("redis-password", |cluster| cluster, |redis| redis.password("right one"));
    let mut sides = mirror.sides();
    sides.ingest("acme", 10);
    sides.settle(&["acme"]);
    let file = mirror.cluster.dir().join("redis-password");
    let write = |password: &str| {
        fs::write(&file, format!("{password}\nthe second line is nobody's\n")).expect("a file");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("its mode");
    };
    write("wrong one");
    mirror.set("tailstream.redis_password_file", file.to_str().expect("a path"));
    // The password file has precedence over the URL, which contains the right password.
    endure(&mut sides, "");
    write("right one");
    sides.settle(&ORGS);
    mirror.set("tailstream.redis_url", &mirror.redis.url());
    sides.ingest("acme", 5);
    sides.settle(&ORGS);
    mirror.set("tailstream.redis_password_file", "/nowhere/password");
    endure(&mut sides, "/nowhere/password");
    mirror.set("tailstream.redis_password_file", file.to_str().expect("a path"));
    sides.settle(&ORGS);
    check_log(&mirror, 2);
}

#[test]
fn a_changed_password_does_not_break_an_open_connection() {
    let mirror = Mirror::new("redis-requirepass");
    let mut sides = mirror.sides();
    sides.ingest("acme", 10);
    sides.settle(&["acme"]);
    command(&mut sides, &["CONFIG", "SET", "requirepass", "late"]);
    // Existing connections stay authenticated. The next one needs the new password.
    command(&mut sides, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    endure(&mut sides, "");
    mirror.set("tailstream.redis_url", &mirror.redis.url().replace("://", "://:late@"));
    sides.settle(&ORGS);
    check_log(&mirror, 3);
}

#[test]
fn a_resync_that_fails_after_its_first_transaction_is_retried_with_growing_pauses() {
    // The first transaction is written, and the first command of the next one fails, as with a server that is too old
    // for it.
    let mirror =
        Mirror::with("redis-old", |cluster| cluster, |redis| redis.setting("rename-command", "XTRIM \"\""));
    let mut sides = mirror.sides();
    sides.ingest("acme", 3_000);
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    wait_for_failure(&mut sides, "unknown command", -1);
    let (began, before) = (Instant::now(), sides.status().retries);
    wait_for_failure(&mut sides, "unknown command", before + 8);
    // Pauses double from 50 ms on, and each is shortened by up to a half. The last three of these add up to at least a
    // second.
    assert!(began.elapsed() > Duration::from_secs(1), "8 attempts in {:?}", began.elapsed());
    let lines = mirror.log_lines("LOG:  tailstream mirror").len();
    assert!(lines < 60, "{lines} lines in the log");
}
