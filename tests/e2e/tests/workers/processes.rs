//! Workers die, and the server stops.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tailstream_e2e::Mirror;
use tailstream_e2e::database::one;
use tailstream_e2e::eventually;
use tailstream_e2e::positions::check_positions;

use crate::{LONG, kill, pids, wait_for_workers};

#[test]
fn the_server_stops_at_once_with_a_full_backlog_and_a_dead_redis() {
    let mut mirror = Mirror::new("workers-stop");
    let mut sides = mirror.sides();
    sides
        .client
        .batch_execute(
            "SELECT ts_create_tier('large', '1 hour', 300000); SELECT ts_set_org_tier('acme', 'large')",
        )
        .expect("a tier");
    sides.ingest("acme", 10);
    sides.settle(&["acme"]);
    mirror.redis.pause().expect("SIGSTOP");
    let many = "SELECT ts_ingest('acme', (SELECT json_agg(json_build_object('path', '/' || n)) FROM generate_series(1, 50000) n))";
    for _ in 0..4 {
        sides.client.batch_execute(many).expect("ingest");
    }
    sides.wait_until_placed();
    assert!(sides.status().backlog_events >= 200_000);
    let began = Instant::now();
    mirror.cluster.stop().expect("a fast shutdown");
    let took = began.elapsed();
    mirror.redis.resume().expect("SIGCONT");
    // The checkpoint of all that was written takes its time as well, so the mirror's part is less.
    assert!(took < Duration::from_secs(2), "the server took {took:?} to stop");
    mirror.cluster.start().expect("the server");
    let mut sides = mirror.sides();
    sides.settle(&["acme"]);
    assert_eq!(sides.length("acme"), 200_010);
}

#[test]
fn killed_workers_come_back_and_nothing_is_lost() {
    let mirror = Mirror::new("workers-killed");
    for worker in ["mirror", "sequencer", "mirror"] {
        let mut sides = mirror.sides();
        wait_for_workers(&mut sides.client, "app");
        sides.ingest("acme", 300);
        let pid = pids(&mut sides.client, "app", worker)[0];
        // All of PostgreSQL starts anew when one of its processes is killed.
        kill(pid, Signal::SIGKILL);
        eventually("the server to take connections again", LONG, || {
            let mut client = mirror.cluster.connect("app").ok()?;
            let there = format!("SELECT FROM pg_stat_activity WHERE pid = {pid}");
            client.query(&there, &[]).ok()?.is_empty().then_some(())
        });
    }
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.settle(&["acme"]);
    check_positions(&mut sides.client);
    assert_eq!(sides.length("acme"), 905);
}

#[test]
fn terminated_workers_come_back() {
    let mirror = Mirror::new("workers-terminated");
    let mut sides = mirror.sides();
    sides.ingest("acme", 10);
    sides.settle(&["acme"]);
    for worker in ["sequencer", "mirror"] {
        let pid = pids(&mut sides.client, "app", worker)[0];
        let terminate = format!("SELECT pg_terminate_backend({pid}, 3000)");
        assert!(one::<bool>(&mut sides.client, &terminate), "{worker}");
        sides.ingest("acme", 10);
    }
    let cancel =
        "SELECT bool_and(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE backend_type LIKE 'tailstream%'";
    assert!(one::<bool>(&mut sides.client, cancel));
    wait_for_workers(&mut sides.client, "app");
    sides.settle(&["acme"]);
    let launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'tailstream launcher'";
    let pid: i32 = one(&mut sides.client, launcher);
    assert!(one::<bool>(&mut sides.client, &format!("SELECT pg_terminate_backend({pid}, 3000)")));
    eventually("another launcher", LONG, || {
        let found: Vec<i32> = tailstream_e2e::database::column(&mut sides.client, launcher);
        (found.len() == 1 && found[0] != pid).then_some(())
    });
    sides.ingest("acme", 1);
    wait_for_workers(&mut sides.client, "app");
    sides.settle(&["acme"]);
}
