//! Bytes of an abandoned connection arrive late.

use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Proxy, eventually};

use crate::command;

/// A mirror behind a proxy, with an org whose stream a new epoch only removes: its events are too old to be written
/// again.
fn behind_proxy(name: &str) -> (Mirror, Proxy) {
    let mirror =
        Mirror::with(name, |cluster| cluster.setting("tailstream.redis_timeout", "1s"), |redis| redis);
    let proxy = Proxy::to(mirror.redis.port());
    mirror.set("tailstream.redis_url", &proxy.url());
    (mirror, proxy)
}

#[test]
fn a_late_removal_of_a_stream_has_no_effect() {
    let (mirror, proxy) = behind_proxy("rewind-late-del");
    let mut sides = mirror.sides();
    // By the next epoch, its events are too old for a stream.
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
    // The stream exists and has to be removed.
    command(&mut sides, &["DEL", "tailstream:stream:quiet"]);
    command(&mut sides, &["XADD", "tailstream:stream:quiet", "1-1", "who", "before"]);
    proxy.hold_at("\r\nDEL\r\n$23\r\ntailstream:stream:quiet\r\n");
    let checkpoints: Vec<String> =
        redis::cmd("KEYS").arg("tailstream:mirror:*").query(&mut sides.redis).expect("KEYS");
    for checkpoint in &checkpoints {
        command(&mut sides, &["DEL", checkpoint]);
    }
    eventually("the removal to be held", PATIENCE, || (proxy.held() == 1).then_some(()));
    // The mirror abandons that connection, and begins the next epoch on another one.
    sides.wait_for_state("running");
    sides.client.batch_execute("SELECT ts_set_org_tier('quiet', 'premium')").expect("a tier");
    sides.ingest("quiet", 2);
    sides.settle(&["quiet", "globex"]);
    proxy.release();
    // Waits for a round trip on a connection of the test, and for one of the mirror.
    sides.ingest("globex", 1);
    sides.settle(&["quiet", "globex"]);
}

#[test]
fn a_late_transaction_or_trim_has_no_effect() {
    let (mirror, proxy) = behind_proxy("rewind-late");
    let mut sides = mirror.sides();
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 100)").expect("a tier");
    sides.ingest("acme", 700);
    sides.settle_ends(&[("acme", 100)]);
    // Holds an XTRIM with a limit that is raised before the command arrives.
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
    // Holds entries.
    proxy.hold_at("\r\nXADD\r\n");
    sides.ingest("acme", 50);
    eventually("a part to be held", PATIENCE, || (proxy.held() == 1).then_some(()));
    sides.settle(&["acme"]);
    proxy.release();
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
}
