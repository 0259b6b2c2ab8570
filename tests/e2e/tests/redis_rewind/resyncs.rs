//! A resync that Redis has lost is repeated.

use tailstream_e2e::{Mirror, Proxy, Sides, Snapshot};

use crate::reconnected;

/// More positions than the mirror checks after a restart. The check therefore does not detect the loss of earlier
/// entries.
const MANY: usize = 1_200;

fn fill(sides: &mut Sides) {
    for _ in 0..MANY {
        sides.ingest("globex", 1);
    }
    sides.settle(&["globex"]);
}

#[test]
fn a_stream_with_widened_limits_is_complete_after_an_old_dump() {
    let mut mirror = Mirror::new("rewind-widened");
    let mut sides = mirror.sides();
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 100)").expect("a tier");
    for _ in 0..3 {
        sides.ingest("acme", 700);
    }
    sides.settle_ends(&[("acme", 100)]);
    let old = Snapshot::save(&mirror.redis);
    let few = sides.length("acme");
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 5000)").expect("a tier");
    sides.settle(&["acme"]);
    assert!(few < 2_000 && sides.length("acme") == 2_100, "{few}");
    let before = sides.status().retries;
    old.restore(&mut mirror.redis);
    reconnected(&mirror, before).settle(&["acme"]);
}

#[test]
fn a_backfill_is_repeated_after_an_old_dump() {
    let mut mirror = Mirror::new("rewind-backfill");
    let mut sides = mirror.sides();
    sides.client.batch_execute("SELECT ts_set_mirror('acme', false)").expect("off");
    sides.ingest("acme", 300);
    fill(&mut sides);
    let old = Snapshot::save(&mirror.redis);
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    sides.settle(&["acme", "globex"]);
    let before = sides.status().retries;
    old.restore(&mut mirror.redis);
    reconnected(&mirror, before).settle(&["acme", "globex"]);
}

/// The dump contains half of a stream, and the end of the stream is not among the positions that are checked after a
/// restart.
#[test]
fn a_dump_made_during_a_resync_leaves_no_hole() {
    let mut mirror = Mirror::new("rewind-amid");
    let proxy = Proxy::to(mirror.redis.port());
    mirror.set("tailstream.redis_timeout", "60s");
    mirror.set("tailstream.redis_url", &proxy.url());
    let mut sides = mirror.sides();
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 100000)").expect("a tier");
    for _ in 0..8 {
        sides.ingest("acme", 1_000);
    }
    fill(&mut sides);
    let last = sides.stream("acme").pop().expect("an entry");
    // An entry in the middle, as the mirror sends it.
    let middle = sides.stream("acme")[4_500].event_id.to_string();
    proxy.hold_at(&format!("\r\nid\r\n${}\r\n{middle}\r\n", middle.len()));
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    tailstream_e2e::eventually("the resync to be held", tailstream_e2e::mirror::PATIENCE, || {
        (proxy.held() == 1).then_some(())
    });
    let old = Snapshot::save(&mirror.redis);
    let half = sides.length("acme");
    assert!(0 < half && half < 8_000, "{half} entries amid the resync");
    proxy.release();
    sides.settle(&["acme"]);
    assert_eq!(sides.stream("acme").last(), Some(&last));
    let before = sides.status().retries;
    old.restore(&mut mirror.redis);
    let mut sides = reconnected(&mirror, before);
    sides.ingest("acme", 1);
    sides.settle(&["acme", "globex"]);
}
