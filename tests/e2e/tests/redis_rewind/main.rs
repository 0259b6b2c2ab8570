//! Redis comes back with older data, or bytes arrive late. The mirror repeats what it did to streams in the meantime
//! (erasures, resyncs), and leaves nothing that should not be there.

mod chaos;
mod delays;
mod erasures;
mod resyncs;

use std::time::{Duration, Instant};

use redis::Value;
use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Sides, eventually};

/// Sends one command to Redis by hand.
#[track_caller]
fn command(sides: &mut Sides, command: &[&str]) -> Value {
    let mut redis = redis::cmd(command[0]);
    redis.arg(&command[1..]);
    redis.query(&mut sides.redis).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn exists(sides: &mut Sides, org: &str) -> bool {
    redis::cmd("EXISTS").arg(sides.key(org)).query(&mut sides.redis).expect("EXISTS")
}

/// Erases an org, and waits until its stream is removed.
#[track_caller]
fn erase(sides: &mut Sides, org: &str) {
    sides.client.execute("SELECT ts_erase_org($1)", &[&org]).expect("ts_erase_org");
    wait_until_gone(sides, org);
}

#[track_caller]
fn wait_until_gone(sides: &mut Sides, org: &str) {
    eventually("the stream of an erased org to be gone, and nothing to be left to do", PATIENCE, || {
        let status = sides.status();
        let idle = status.state == "running" && status.orgs_to_rebuild == 0 && status.backlog_batches == 0;
        (idle && !exists(sides, org)).then_some(())
    });
}

/// Connects again after a restart of Redis, once the mirror has read the checkpoint.
#[track_caller]
fn reconnected(mirror: &Mirror, before: i64) -> Sides {
    let mut sides = mirror.sides();
    let began = Instant::now();
    while sides.status().retries <= before || sides.status().state != "running" {
        assert!(began.elapsed() < PATIENCE, "the mirror does not come back: {:?}", sides.status());
        std::thread::sleep(Duration::from_millis(10));
    }
    sides
}
