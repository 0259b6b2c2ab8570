//! A setting becomes unusable while there is much to send.

use std::fmt::Write;

use tailstream_e2e::Mirror;
use tailstream_e2e::database::ingest;

const BATCHES: usize = 40;

/// The mirror disconnects with one transaction in flight and the next one read. The replies to the first must not be
/// taken for those to the second.
#[test]
fn an_invalid_template_during_a_backlog_loses_nothing() {
    let mirror = Mirror::new("redis-template");
    let mut sides = mirror.sides();
    let room =
        "SELECT ts_set_org_tier('acme', 'premium'), ts_alter_tier('premium', stream_entries => 10000000)";
    sides.client.execute(room, &[]).expect("room for all");
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
    let mut events = String::from("[{}");
    for event in 1..1_000 {
        write!(events, r#",{{"path":"/{event}"}}"#).expect("text");
    }
    events.push(']');
    for _ in 0..2 {
        mirror.redis.pause().expect("SIGSTOP");
        for _ in 0..BATCHES {
            ingest(&mut sides.client, "acme", &events, None).expect("ingest");
        }
        sides.wait_until_placed();
        mirror.redis.resume().expect("SIGCONT");
        mirror.set("tailstream.stream_key", "nothing");
        sides.wait_for_state("failing");
        mirror.set("tailstream.stream_key", "tailstream:stream:{org}");
        sides.settle(&["acme"]);
    }
}
