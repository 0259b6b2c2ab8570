//! Whatever Redis does, ingest neither fails nor waits, and in the end the streams match the table.

mod credentials;
mod failover;
mod keys;
mod large;
mod outages;
mod refusals;
mod settings;
mod tls;

use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Sides, eventually};

/// The number of attempts that must fail before a test accepts that they are not logged one by one.
const ATTEMPTS: i64 = 6;

/// Sends one command to Redis by hand.
#[track_caller]
fn command(sides: &mut Sides, command: &[&str]) -> Value {
    let mut redis = redis::cmd(command[0]);
    redis.arg(&command[1..]);
    redis.query(&mut sides.redis).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits until the mirror fails with an error that contains `reason`, and has retried more than `retries` times.
#[track_caller]
fn wait_for_failure(sides: &mut Sides, reason: &str, retries: i64) {
    let began = Instant::now();
    loop {
        let status = sides.status();
        let told = status.last_error.as_ref().is_some_and(|error| error.contains(reason));
        if status.state == "failing" && told && status.retries > retries {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "no failure with {reason:?}: {status:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until all events of these orgs are in their streams, regardless of other orgs.
#[track_caller]
fn wait_for(sides: &mut Sides, orgs: &[(&str, usize)]) {
    let began = Instant::now();
    loop {
        let mut wrong = sides.unsettled(orgs);
        wrong.retain(|wrong| !wrong.starts_with("Status"));
        if wrong.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the others wait: {wrong:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// While the mirror fails with an error that contains `reason`, ingest works, and the mirror retries repeatedly.
#[track_caller]
fn endure(sides: &mut Sides, reason: &str) {
    wait_for_failure(sides, reason, -1);
    let before = sides.status().retries;
    for org in ["acme", "globex", "acme"] {
        sides.ingest_promptly(org, 7);
    }
    eventually("more attempts", PATIENCE, || (sides.status().retries >= before + ATTEMPTS).then_some(()));
    sides.ingest_promptly("globex", 2);
    let status = sides.status();
    assert!(status.backlog_batches >= 4 && status.backlog_events >= 23, "{status:?}");
}

/// Checks the mirror's messages in the server's log: why it failed and that it works again, once for each change.
#[track_caller]
fn check_log(mirror: &Mirror, failures: usize) {
    let lines = mirror.log_lines("  tailstream mirror");
    let mut lines: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split_once("LOG:  tailstream mirror").map(|(_, message)| message))
        .filter(|message| !message.contains("begins a new epoch"))
        .collect();
    let all = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), all, "the same was said twice: {lines:#?}");
    let recovered = lines.iter().filter(|line| line.contains("works again")).count();
    assert!(recovered > 0 && lines.last().is_some_and(|line| line.contains("works again")), "{lines:#?}");
    assert!(all - recovered <= failures, "more than {failures} lines on failures: {lines:#?}");
}
