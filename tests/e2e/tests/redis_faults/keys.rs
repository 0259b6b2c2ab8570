//! The key of one org is unusable. Only this org is affected.

use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Mirror, Sides, eventually};

use crate::{command, wait_for};

/// Ingests for the broken org and for others. The events of the others must arrive.
#[track_caller]
fn check_others_continue(sides: &mut Sides, broken: &str) {
    for _ in 0..3 {
        sides.ingest_promptly(broken, 5);
        sides.ingest_promptly("globex", 5);
        sides.ingest_promptly("initech", 600);
    }
    wait_for(sides, &[("globex", usize::MAX), ("initech", usize::MAX)]);
}

#[test]
fn a_key_of_another_type_affects_only_its_own_org() {
    let mirror = Mirror::new("key-type");
    let mut sides = mirror.sides();
    sides.ingest("globex", 1);
    sides.settle(&["globex"]);
    let key = sides.key("acme");
    command(&mut sides, &["SET", &key, "somebody's"]);
    check_others_continue(&mut sides, "acme");
    let value: String = redis::cmd("GET").arg(&key).query(&mut sides.redis).expect("GET");
    assert_eq!(value, "somebody's", "what is no stream is not ours to remove");
    assert_eq!(sides.status().orgs_to_rebuild, 1);
    let state = "SELECT state FROM ts_mirror_status('acme')";
    let state: String = tailstream_e2e::database::one(&mut sides.client, state);
    assert_eq!(state, "rebuilding: failed");
    command(&mut sides, &["DEL", &key]);
    sides.settle(&["acme", "globex", "initech"]);
    let lines = mirror.log_lines("the stream of org \"acme\" must be written again");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    // The stream is replaced by a key of another type, for a moment only.
    command(&mut sides, &["DEL", &key]);
    command(&mut sides, &["RPUSH", &key, "x"]);
    check_others_continue(&mut sides, "acme");
    command(&mut sides, &["DEL", &key]);
    sides.settle(&["acme", "globex", "initech"]);
}

#[test]
fn an_entry_of_another_writer_with_a_huge_id_is_removed() {
    let mirror = Mirror::new("key-huge");
    let mut sides = mirror.sides();
    sides.ingest("acme", 20);
    sides.settle(&["acme"]);
    let key = sides.key("acme");
    for id in ["9999999999999-5", "18446744073709551615-18446744073709551615"] {
        command(&mut sides, &["XADD", &key, id, "who", "somebody"]);
        // Entries of other writers have other fields, so the stream is not read before the mirror has replaced it.
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
fn a_key_without_write_permission_affects_only_its_own_org() {
    let mirror = Mirror::new("key-forbidden");
    let mut sides = mirror.sides();
    sides.ingest("globex", 1);
    sides.settle(&["globex"]);
    let keys = ["~tailstream:mirror:*", "~*globex", "~*initech"];
    command(&mut sides, &[&["ACL", "SETUSER", "default", "resetkeys"][..], &keys].concat());
    check_others_continue(&mut sides, "acme");
    command(&mut sides, &["ACL", "SETUSER", "default", "allkeys"]);
    sides.settle(&["acme", "globex", "initech"]);
}

#[test]
fn a_key_that_cannot_be_trimmed_does_not_prevent_trimming_of_others() {
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
fn a_deleted_stream_is_resynced_at_its_next_event_or_on_request() {
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
