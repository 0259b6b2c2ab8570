//! Streams are trimmed by count and by age, to the limits of their tier.

use tailstream_e2e::database::one;
use tailstream_e2e::eventually;
use tailstream_e2e::mirror::PATIENCE;

use crate::database;

/// Redis trims whole nodes, which have a hundred entries by default.
const NODE: usize = 100;

#[test]
fn a_stream_keeps_the_number_of_entries_of_its_tier() {
    let (_database, mut sides) = database("by_count");
    sides
        .client
        .batch_execute(
            "SELECT ts_create_tier('short', '1 hour', 1000); SELECT ts_set_org_tier('acme', 'short')",
        )
        .expect("a tier");
    for _ in 0..20 {
        sides.ingest("acme", 250);
    }
    sides.ingest("free", 3_000);
    sides.settle_ends(&[("acme", 1_000), ("free", 3_000)]);
    let length = sides.length("acme");
    assert!((1_000..=1_000 + NODE).contains(&length), "{length} entries");
    sides.client.batch_execute("SELECT ts_alter_tier('short', stream_entries => 10)").expect("a lower limit");
    eventually("the stream to be trimmed without new entries", PATIENCE, || {
        (sides.length("acme") <= 10 + NODE).then_some(())
    });
    sides.settle_ends(&[("acme", 10), ("free", 3_000)]);
    sides
        .client
        .batch_execute("SELECT ts_alter_tier('short', stream_entries => 2000)")
        .expect("a higher limit");
    for _ in 0..4 {
        sides.ingest("acme", 600);
    }
    // Trimmed entries do not come back, so only the new entries can be checked.
    sides.settle_ends(&[("acme", 10)]);
    let length = sides.length("acme");
    assert!((2_000..=2_000 + NODE).contains(&length), "{length} entries");
}

#[test]
fn a_stream_keeps_entries_for_the_stream_age_of_its_tier() {
    let (_database, mut sides) = database("by_age");
    sides
        .client
        .batch_execute("SELECT ts_create_tier('brief', '1 hour'); SELECT ts_set_org_tier('acme', 'brief')")
        .expect("a tier");
    sides.ingest("acme", 500);
    sides.ingest("other", 500);
    sides.settle(&["acme", "other"]);
    // A change of a tier trims every stream at once. The entries grow older until they exceed the limit.
    eventually("the old entries to go", PATIENCE, || {
        let sql = "SELECT ts_alter_tier('brief', stream_age => '1 second')";
        sides.client.batch_execute(sql).expect("a lower limit");
        (sides.length("acme") == 0).then_some(())
    });
    assert_eq!(sides.length("other"), 500);
    assert_eq!(sides.verify("acme"), [("matching".to_owned(), 0)]);
    sides
        .client
        .batch_execute("SELECT ts_alter_tier('brief', stream_age => '1 hour')")
        .expect("a higher limit");
    sides.ingest("acme", 5);
    sides.settle_ends(&[("acme", 5)]);
}

#[test]
fn each_tier_has_its_default_limits_until_they_are_changed() {
    let (_database, mut sides) = database("limits");
    let limits =
        |org: &str| format!("SELECT stream_entries || ' ' || stream_age FROM ts_mirror_status('{org}')");
    sides.ingest("plain", 1);
    sides.client.batch_execute("SELECT ts_set_org_tier('gold', 'premium')").expect("a premium org");
    assert_eq!(one::<String>(&mut sides.client, &limits("plain")), "5000 01:00:00");
    assert_eq!(one::<String>(&mut sides.client, &limits("gold")), "50000 01:00:00");
    sides
        .client
        .batch_execute("SELECT ts_alter_tier('premium', stream_entries => 7, stream_age => '90 minutes')")
        .expect("other limits");
    assert_eq!(one::<String>(&mut sides.client, &limits("gold")), "7 01:30:00");
    assert_eq!(one::<String>(&mut sides.client, "SELECT retention::text FROM ts_org('gold')"), "7 days");
    for wrong in [
        "SELECT ts_alter_tier('premium')",
        "SELECT ts_alter_tier('premium', stream_entries => 0)",
        "SELECT ts_alter_tier('premium', stream_age => '-1 hour')",
        "SELECT ts_alter_tier('premium', stream_age => '1 month')",
        "SELECT ts_create_tier('x', '1 hour', -1)",
    ] {
        let error = sides.client.batch_execute(wrong).expect_err(wrong);
        assert!(error.code().is_some_and(|code| code.code().starts_with("22")), "{wrong}: {error:?}");
    }
}

#[test]
fn an_org_that_changes_its_tier_keeps_its_stream() {
    let (_database, mut sides) = database("retiered");
    for tier in ["premium", "standard", "premium"] {
        sides.ingest("acme", 30);
        sides.client.execute("SELECT ts_set_org_tier('acme', $1)", &[&tier]).expect("another tier");
        sides.ingest("acme", 30);
    }
    sides.settle(&["acme"]);
    assert_eq!(sides.length("acme"), 180);
    let tiers = "SELECT count(DISTINCT tier) FROM tailstream.events WHERE org_id = 'acme'";
    assert_eq!(one::<i64>(&mut sides.client, tiers), 2);
}

#[test]
fn the_stream_of_an_upgraded_org_is_complete() {
    let (_database, mut sides) = database("upgraded");
    for _ in 0..7 {
        sides.ingest("acme", 1_000);
    }
    sides.settle_ends(&[("acme", 5_000)]);
    sides.client.batch_execute("SELECT ts_set_org_tier('acme', 'premium')").expect("an upgrade");
    sides.ingest("acme", 10);
    sides.settle_ends(&[("acme", 5_010)]);
}

#[test]
fn a_stream_age_may_reach_back_beyond_the_unix_epoch() {
    let (_database, mut sides) = database("for_ever");
    sides
        .client
        .batch_execute(
            "SELECT ts_create_tier('for_ever', '36500 days', 5000, '36500 days'); SELECT ts_set_org_tier('acme', 'for_ever')",
        )
        .expect("a tier");
    sides.ingest("acme", 500);
    sides.settle(&["acme"]);
    // The stream is resynced, and trimmed with all others.
    sides
        .client
        .batch_execute("SELECT ts_set_mirror('acme', true, '1 hour'), ts_set_org_tier('other', 'premium')")
        .expect("a backfill");
    sides.ingest("acme", 1_200);
    sides.settle(&["acme"]);
    assert_eq!(sides.status().retries, 0);
}
