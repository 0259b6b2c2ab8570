//! One org's key is broken: that concerns this org alone.

use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Sides, eventually};

use crate::{command, wait_for};

/// Ingests for the broken org and others; the others' events have to come.
#[track_caller]
fn others_go_on(sides: &mut Sides, broken: &str) {
    for _ in 0..3 {
        sides.ingest_promptly(broken, 5);
        sides.ingest_promptly("globex", 5);
        sides.ingest_promptly("initech", 600);
    }
    wait_for(sides, &[("globex", usize::MAX), ("initech", usize::MAX)]);
}

#[test]
fn a_key_of_another_type_holds_up_its_own_org_alone() {
    let mirror = Mirror::new("key-type");
    let mut sides = mirror.sides();
    sides.ingest("globex", 1);
    sides.settle(&["globex"]);
    let key = sides.key("acme");
    command(&mut sides, &["SET", &key, "somebody's"]);
    others_go_on(&mut sides, "acme");
    let value: String = redis::cmd("GET").arg(&key).query(&mut sides.redis).expect("GET");
    assert_eq!(value, "somebody's", "what is no stream is not ours to remove");
    assert_eq!(sides.status().orgs_to_rebuild, 1);
    let state = "SELECT state FROM ts_mirror_status('acme')";
    let state: String = tailstream_e2e::database::one(&mut sides.client, state);
    assert_eq!(state, "rebuilding: failed");
    command(&mut sides, &["DEL", &key]);
    sides.settle(&["acme", "globex", "initech"]);
    let lines = mirror.log_lines("the stream of org \"acme\" has to be made again");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    // A stream that turns into something else, and stays it for a moment only.
    command(&mut sides, &["DEL", &key]);
    command(&mut sides, &["RPUSH", &key, "x"]);
    others_go_on(&mut sides, "acme");
    command(&mut sides, &["DEL", &key]);
    sides.settle(&["acme", "globex", "initech"]);
}

#[test]
fn a_foreign_entry_with_a_huge_id_does_not_last() {
    let mirror = Mirror::new("key-huge");
    let mut sides = mirror.sides();
    sides.ingest("acme", 20);
    sides.settle(&["acme"]);
    let key = sides.key("acme");
    for id in ["9999999999999-5", "18446744073709551615-18446744073709551615"] {
        command(&mut sides, &["XADD", &key, id, "who", "somebody"]);
        // Entries of others have other fields, so the stream is not read before it is ours again.
        sides.ingest_promptly("globex", 5);
        sides.ingest_promptly("acme", 5);
        eventually("the foreign entry to be gone", PATIENCE, || {
            let last: Vec<redis::Value> =
                redis::cmd("XRANGE").arg(&key).arg(id).arg("+").query(&mut sides.redis).expect("XRANGE");
            last.is_empty().then_some(())
        });
        sides.settle(&["acme", "globex"]);
    }
}

#[test]
fn a_key_that_may_not_be_written_holds_up_its_own_org_alone() {
    let mirror = Mirror::new("key-forbidden");
    let mut sides = mirror.sides();
    sides.ingest("globex", 1);
    sides.settle(&["globex"]);
    let keys = ["~tailstream:mirror:*", "~*globex", "~*initech"];
    command(&mut sides, &[&["ACL", "SETUSER", "default", "resetkeys"][..], &keys].concat());
    others_go_on(&mut sides, "acme");
    command(&mut sides, &["ACL", "SETUSER", "default", "allkeys"]);
    sides.settle(&["acme", "globex", "initech"]);
}

#[test]
fn a_key_that_may_not_be_trimmed_leaves_the_others_trimmed() {
    let mirror = Mirror::new("key-untrimmed");
    let mut sides = mirror.sides();
    for org in ["acme", "globex", "initech"] {
        sides.ingest(org, 900);
    }
    sides.settle(&["acme", "globex", "initech"]);
    let keys = ["~tailstream:mirror:*", "~*globex", "~*initech"];
    command(&mut sides, &[&["ACL", "SETUSER", "default", "resetkeys"][..], &keys].concat());
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 100)").expect("a tier");
    for org in ["globex", "initech"] {
        eventually("the stream to be trimmed", PATIENCE, || (sides.length(org) < 300).then_some(()));
    }
    command(&mut sides, &["ACL", "SETUSER", "default", "allkeys"]);
    assert_eq!(sides.status().retries, 0, "nothing was done twice");
    assert_eq!(mirror.log_lines("stream of org \"acme\" cannot be trimmed").len(), 1);
}

#[test]
fn a_stream_that_somebody_deleted_is_made_again_with_its_next_event_or_on_request() {
    let mirror = Mirror::new("key-deleted");
    let mut sides = mirror.sides();
    sides.ingest("acme", 20);
    sides.settle(&["acme"]);
    let key = sides.key("acme");
    command(&mut sides, &["DEL", &key]);
    assert_eq!(sides.verify("acme"), [("matching".to_owned(), 0), ("missing".to_owned(), 20)]);
    sides.client.batch_execute("SELECT ts_set_mirror('acme', true, '1 hour')").expect("a backfill");
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
}
