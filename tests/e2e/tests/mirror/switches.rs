//! Switching orgs and the mirror off and on: exactly the events of the time in between are not in the stream.

use tailstream_e2e::database::ingest;
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::{Mirror, Sides, refused};

use crate::database;

fn switch(sides: &mut Sides, org: &str, on: bool) {
    sides.client.execute("SELECT ts_set_mirror($1, $2)", &[&org, &on]).expect("ts_set_mirror");
}

/// The batches whose events are in an org's stream.
fn batches(sides: &mut Sides, org: &str) -> Vec<i64> {
    let mut batches: Vec<i64> = sides.stream(org).iter().map(|entry| entry.event_id >> 16).collect();
    batches.dedup();
    batches
}

/// Waits until the backlog is empty.
fn drain(sides: &mut Sides) {
    sides.settle(&[]);
}

#[test]
fn an_org_that_is_switched_off_and_on_gets_a_stream_of_new_events_only() {
    let (_database, mut sides) = database("switched");
    let before = sides.ingest("acme", 3);
    drain(&mut sides);
    switch(&mut sides, "acme", false);
    sides.ingest("acme", 3);
    let other = sides.ingest("other", 2);
    drain(&mut sides);
    assert_eq!(batches(&mut sides, "acme"), [before]);
    assert_eq!(batches(&mut sides, "other"), [other], "others are not concerned");
    switch(&mut sides, "acme", true);
    let after = sides.ingest("acme", 3);
    drain(&mut sides);
    assert_eq!(batches(&mut sides, "acme"), [after], "a stream has no holes");
    switch(&mut sides, "acme", true);
    let last = sides.ingest("acme", 3);
    drain(&mut sides);
    assert_eq!(batches(&mut sides, "acme"), [after, last], "switching on twice changes nothing");
    // Switches off and on in one transaction, which is rolled back.
    sides
        .client
        .batch_execute(
            "BEGIN; SELECT ts_set_mirror('acme', false); ROLLBACK; BEGIN; SELECT ts_set_mirror('new', false)",
        )
        .expect("switches");
    let unseen = ingest(&mut sides.client, "new", &some_events(1), None).expect("ingest").batch_id;
    sides.client.batch_execute("COMMIT").expect("commit");
    let end = sides.ingest("acme", 1);
    drain(&mut sides);
    assert_eq!(batches(&mut sides, "acme"), [after, last, end]);
    assert!(batches(&mut sides, "new").is_empty(), "batch {unseen}");
}

#[test]
fn events_committed_before_the_call_are_skipped() {
    let (database, mut sides) = database("open");
    let (mut first, mut second) = (database.connect(), database.connect());
    sides.ingest("acme", 1);
    switch(&mut sides, "acme", false);
    let mut early = first.transaction().expect("a transaction");
    ingest(&mut early, "acme", &some_events(1), None).expect("ingest");
    let mut late = second.transaction().expect("a transaction");
    let kept = ingest(&mut late, "acme", &some_events(1), None).expect("ingest").batch_id;
    early.commit().expect("commit");
    switch(&mut sides, "acme", true);
    late.commit().expect("commit");
    drain(&mut sides);
    let found = batches(&mut sides, "acme");
    assert_eq!(found[found.len() - 1], kept, "it began before the call and committed after it");
    assert!(found.len() <= 2, "what committed while it was off is not there: {found:?}");
    assert_eq!(sides.verify("acme").len(), 1);
}

#[test]
fn events_committed_between_the_call_and_its_commit_are_mirrored() {
    let (database, mut sides) = database("undecided");
    let mut admin = database.connect();
    sides.ingest("acme", 1);
    switch(&mut sides, "acme", false);
    sides.ingest("acme", 1);
    drain(&mut sides);
    admin.batch_execute("BEGIN; SELECT ts_set_mirror('acme', true)").expect("a switch");
    let between = sides.ingest("acme", 2);
    // The mirror skips the batch, because the org is still switched off.
    drain(&mut sides);
    admin.batch_execute("COMMIT").expect("commit");
    let after = sides.ingest("acme", 3);
    drain(&mut sides);
    assert_eq!(batches(&mut sides, "acme"), [between, after]);
    assert_eq!(sides.verify("acme").len(), 1);
}

#[test]
fn a_backfill_writes_the_events_of_its_interval() {
    let (_database, mut sides) = database("backfilled");
    let mut all = Vec::new();
    for _ in 0..2 {
        all.push(sides.ingest("acme", 3));
        sides.wait_until_placed();
    }
    drain(&mut sides);
    switch(&mut sides, "acme", false);
    all.push(sides.ingest("acme", 3));
    drain(&mut sides);
    // Moves the position of the first batch back by ten minutes.
    sides
        .client
        .batch_execute(
            "WITH moved AS (DELETE FROM tailstream.positions WHERE org_id = 'chunks' OR batch_id =
                 (SELECT min(batch_id) FROM tailstream.batches WHERE org_id = 'acme') RETURNING *)
             INSERT INTO tailstream.positions SELECT (jsonb_populate_record(NULL::tailstream.positions,
                 to_jsonb(m) || jsonb_build_object('placed_at', m.placed_at - interval '10 minutes'))).* FROM moved m",
        )
        .expect("an older place");
    let backfill = |sides: &mut Sides, interval: &str| {
        let sql = format!("SELECT ts_set_mirror('acme', true, '{interval}')");
        sides.client.batch_execute(&sql).expect("ts_set_mirror");
        drain(sides);
    };
    backfill(&mut sides, "5 minutes");
    assert_eq!(batches(&mut sides, "acme"), all[1..]);
    backfill(&mut sides, "15 minutes");
    assert_eq!(batches(&mut sides, "acme"), all);
    sides.settle(&["acme"]);
    all.push(sides.ingest("acme", 2));
    sides.settle(&["acme"]);
    // A backfill never goes back further than `stream_age` of the tier.
    sides
        .client
        .batch_execute("SELECT ts_alter_tier('standard', stream_age => '5 minutes', stream_entries => 4)")
        .expect("limits");
    backfill(&mut sides, "15 minutes");
    assert_eq!(sides.stream("acme").len(), 4);
    assert_eq!(batches(&mut sides, "acme"), all[2..]);
    for (wrong, state) in [
        ("SELECT ts_set_mirror('acme', false, '1 hour')", "22023"),
        ("SELECT ts_set_mirror('acme', true, '-1 hour')", "22023"),
        ("SELECT ts_set_mirror('acme', NULL)", "22004"),
    ] {
        refused(wrong, sides.client.batch_execute(wrong), &[state]);
    }
}

#[test]
fn mirror_enabled_and_stream_key_take_effect_at_a_reload() {
    let mirror = Mirror::new("mirror-switch");
    let mut sides = mirror.sides();
    let before = sides.ingest("acme", 3);
    sides.settle(&["acme"]);
    mirror.set("tailstream.mirror_enabled", "off");
    sides.wait_for_state("off");
    let off = sides.ingest("acme", 3);
    sides.wait_until_placed();
    assert!(!sides.status().connected);
    assert_eq!(sides.length("acme"), 3);
    mirror.set("tailstream.mirror_enabled", "on");
    sides.wait_for_state("running");
    let after = sides.ingest("acme", 2);
    drain(&mut sides);
    assert_eq!(batches(&mut sides, "acme"), [after], "a stream has no holes");
    assert_eq!(
        sides.verify("acme"),
        [("matching".to_owned(), 2)],
        "the stream is judged from where it was switched on"
    );
    // A backfill goes back beyond the switch only where the mirror was on.
    assert!(off > before);

    mirror.set("tailstream.stream_key", "live:{database}:{{org}}");
    let mut tagged = Sides::new(mirror.connect(), &mirror.redis, "live:app:{{org}}");
    let last = tagged.ingest("acme", 1);
    drain(&mut tagged);
    assert_eq!(tagged.key("acme"), "live:app:{acme}");
    assert_eq!(batches(&mut tagged, "acme"), [after, last], "a new key is a new stream of the present");
    let shown = "SELECT stream_key FROM ts_mirror_status('acme')";
    assert_eq!(tailstream_e2e::database::one::<String>(&mut tagged.client, shown), "live:app:{acme}");
    mirror.set("tailstream.stream_key", "live:{database}");
    tagged.wait_for_state("failing");
    let error = tagged.status().last_error.expect("an error");
    assert!(error.contains("tailstream.stream_key"), "{error}");
    tagged.ingest_promptly("acme", 1);
    mirror.set("tailstream.stream_key", "live:{database}:{{org}}");
    drain(&mut tagged);
    assert_eq!(batches(&mut tagged, "acme").len(), 3);
}

#[test]
fn several_requests_in_a_row_are_all_executed() {
    let (_database, mut sides) = database("requests");
    let orgs = ["a", "b", "c", "d", "e"];
    for org in orgs {
        sides.ingest(org, 1_500);
    }
    sides.settle(&orgs);
    // The next request arrives during the resync.
    for _ in 0..5 {
        for org in orgs {
            sides.client.execute("SELECT ts_set_mirror($1, true, '1 hour')", &[&org]).expect("a backfill");
        }
        sides.settle(&orgs);
    }
}
