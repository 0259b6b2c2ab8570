//! A standby has no workers until it is promoted.

use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, soon_placed};
use tailstream_e2e::{Mirror, Sides, Standby, eventually};

use crate::{LONG, wait_for_workers};

#[test]
fn a_standby_has_workers_as_soon_as_it_is_promoted() {
    let mirror = Mirror::new("workers-standby");
    let mut sides = mirror.sides();
    sides.ingest("acme", 20);
    sides.settle(&["acme"]);

    let mut standby = Standby::copy(&mirror.cluster);
    standby.start();
    let mut client = standby.connect("app");
    sides.ingest("acme", 5);
    sides.settle(&["acme"]);
    let count = "SELECT count(*) FROM tailstream.positions WHERE org_id = 'acme'";
    eventually("the standby to follow", LONG, || (one::<i64>(&mut client, count) == 2).then_some(()));
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'tailstream%'";
    assert_eq!(one::<i64>(&mut client, workers), 0, "no workers on a standby");
    mirror.cluster.kill9().expect("kill -9 of the primary");
    standby.promote(&mut client);
    wait_for_workers(&mut client, "app");
    let batch = ingest(&mut client, "acme", &some_events(3), None).expect("ingest").batch_id;
    soon_placed(&mut client, batch);
    check_positions(&mut client);
    let mut promoted = Sides::new(client, &mirror.redis, "tailstream:stream:{org}");
    promoted.settle(&["acme"]);
    assert_eq!(promoted.length("acme"), 28);
}
