//! Bytes of a connection that was given up arrive late.

use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Proxy, eventually};

use crate::command;

/// A mirror behind a proxy, with an org whose stream is only cleared when a new epoch begins: none of its events are young
/// enough to be made again.
fn behind_proxy(name: &str) -> (Mirror, Proxy) {
    let mirror =
        Mirror::with(name, |cluster| cluster.setting("tailstream.redis_timeout", "1s"), |redis| redis);
    let proxy = Proxy::to(mirror.redis.port());
    mirror.set("tailstream.redis_url", &proxy.url());
    (mirror, proxy)
}

#[test]
fn a_removal_of_a_stream_that_arrives_late_removes_nothing() {
    let (mirror, proxy) = behind_proxy("rewind-late-del");
    let mut sides = mirror.sides();
    // Its events are too old for a stream by the time of the next epoch.
    sides
        .client
        .batch_execute(
            "SELECT ts_create_tier('short', '1 hour', 5000, '1 second'), ts_set_org_tier('quiet', 'short')",
        )
        .expect("a tier");
    sides.ingest("quiet", 3);
    sides.ingest("globex", 3);
    sides.settle(&["globex"]);
    let expired = "SELECT count(*) FROM tailstream.positions WHERE org_id = 'quiet' AND placed_at > clock_timestamp() - interval '1 second'";
    eventually("the events of quiet to be too old", PATIENCE, || {
        let young: i64 = sides.client.query_one(expired, &[]).expect("positions").get(0);
        (young == 0 && sides.status().backlog_batches == 0).then_some(())
    });
    // There is something to remove.
    command(&mut sides, &["DEL", "tailstream:stream:quiet"]);
    command(&mut sides, &["XADD", "tailstream:stream:quiet", "1-1", "who", "before"]);
    proxy.hold_at("\r\nDEL\r\n$23\r\ntailstream:stream:quiet\r\n");
    let checkpoints: Vec<String> =
        redis::cmd("KEYS").arg("tailstream:mirror:*").query(&mut sides.redis).expect("KEYS");
    for checkpoint in &checkpoints {
        command(&mut sides, &["DEL", checkpoint]);
    }
    eventually("the removal to be held", PATIENCE, || (proxy.held() == 1).then_some(()));
    // The mirror gives that connection up and begins the next epoch on another one.
    sides.wait_for_state("running");
    sides.client.batch_execute("SELECT ts_set_org_tier('quiet', 'premium')").expect("a tier");
    sides.ingest("quiet", 2);
    sides.settle(&["quiet", "globex"]);
    proxy.release();
    // Behind a round trip on a connection of its own, and one of the mirror's.
    sides.ingest("globex", 1);
    sides.settle(&["quiet", "globex"]);
}

#[test]
fn what_a_part_or_a_trim_has_to_say_late_is_not_heard() {
    let (mirror, proxy) = behind_proxy("rewind-late");
    let mut sides = mirror.sides();
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 100)").expect("a tier");
    sides.ingest("acme", 700);
    sides.settle_ends(&[("acme", 100)]);
    // An XTRIM by a limit that is raised before it arrives.
    proxy.hold_at("\r\nMAXLEN\r\n$1\r\n~\r\n$3\r\n100\r\n");
    sides
        .client
        .batch_execute("SELECT ts_set_org_tier('globex', 'premium')")
        .expect("a change that has all trimmed");
    eventually("a trim to be held", PATIENCE, || (proxy.held() == 1).then_some(()));
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 5000)").expect("a tier");
    sides.settle(&["acme"]);
    proxy.release();
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
    // Entries.
    proxy.hold_at("\r\nXADD\r\n");
    sides.ingest("acme", 50);
    eventually("a part to be held", PATIENCE, || (proxy.held() == 1).then_some(()));
    sides.settle(&["acme"]);
    proxy.release();
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
}
