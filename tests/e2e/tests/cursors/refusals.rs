//! What is refused, and with which SQLSTATE.

use tailstream_e2e::cursor::{Fetched, ack, fetch, fetched, labels, page, store};
use tailstream_e2e::{Database, Server, refused};

use crate::{create, database, store_placed};

/// Every statement that must fail. `c` is a cursor of acme, `two` one of acme and one of other, nobody has `nope`.
/// Text that is neither a word nor a token is taken for a time.
const REFUSED: &[(&str, &str)] = &[
    ("ts_cursor_create('c', 'acme')", "42710"),
    ("ts_cursor_create('c', 'acme', 'now', order_by => 'event_time')", "42710"),
    ("ts_cursor_create('c', 'acme', now())", "42710"),
    ("ts_cursor_create(NULL, 'acme')", "22004"),
    ("ts_cursor_create('x', NULL)", "22004"),
    ("ts_cursor_create('x', '')", "22023"),
    ("ts_cursor_create('x', repeat('o', 256))", "22023"),
    ("ts_cursor_create('x', 'acme', 'the day before')", "22007"),
    ("ts_cursor_create('x', 'acme', '')", "22007"),
    ("ts_cursor_create('x', 'acme', now() - interval '4 hours', order_by => 'event_time')", "22008"),
    ("ts_cursor_create('x', 'acme', order_by => 'created_at')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '{\"stat\": 200}')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '{\"status\": \"many\"}')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '{\"status\": 4.5}')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '{\"path\": 7}')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '{\"metadata\": []}')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '{\"method\": {}}')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '[]')", "22023"),
    ("ts_cursor_create('x', 'acme', filter => '\"status\"')", "22023"),
    ("ts_cursor_fetch('nope')", "42704"),
    ("ts_cursor_fetch('c', org => 'other')", "42704"),
    ("ts_cursor_fetch('c', org => 'never seen')", "42704"),
    ("ts_cursor_fetch('two')", "22023"),
    ("ts_cursor_fetch(NULL)", "22004"),
    ("ts_cursor_fetch('c', 0)", "22023"),
    ("ts_cursor_fetch('c', -1)", "22023"),
    ("ts_cursor_ack('nope', 'x')", "42704"),
    ("ts_cursor_ack('two', 'x')", "22023"),
    ("ts_cursor_ack('c', 'x', org => 'other')", "42704"),
    ("ts_cursor_ack('c', 'garbage')", "22023"),
    ("ts_cursor_ack('c', '')", "22023"),
    ("ts_cursor_ack('c', 'beginning')", "22023"),
    ("ts_cursor_ack('c', NULL)", "22004"),
    ("ts_cursor_seek('nope', 'now')", "42704"),
    ("ts_cursor_seek('nope', now())", "42704"),
    ("ts_cursor_seek('two', 'now')", "22023"),
    ("ts_cursor_seek('c', 'now', org => 'other')", "42704"),
    ("ts_cursor_seek('c', 'garbage')", "22007"),
    ("ts_cursor_drop('nope')", "42704"),
    ("ts_cursor_drop('two')", "22023"),
    ("ts_cursor_drop('c', org => 'other')", "42704"),
];

#[test]
fn every_misuse_has_its_sqlstate_and_changes_nothing() {
    let database = database("refused");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 20), ("b", 10)]);
    create(&mut client, "'c', 'acme'");
    create(&mut client, "'two', 'acme'");
    create(&mut client, "'two', 'other'");
    let cursors = |client: &mut postgres::Client| {
        let all = "SELECT name, org_id, position_id, lag_events FROM tailstream.cursors ORDER BY 1, 2";
        format!("{:?}", client.simple_query(all).expect("the cursors"))
    };
    let before = cursors(&mut client);
    for (call, state) in REFUSED {
        let error = refused(call, client.execute(&format!("SELECT * FROM {call}"), &[]), &[state]);
        assert!(error.message().starts_with(|c: char| !c.is_uppercase()), "{call}: {}", error.message());
        if call.contains("'two'") {
            assert!(error.hint().is_some_and(|hint| hint.contains("org")), "{call}: {:?}", error.hint());
        }
    }
    assert_eq!(cursors(&mut client), before);
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}");
        client.batch_execute(&begin).expect("begin");
        refused(isolation, fetch(&mut client, "'c', timeout => '1 s'"), &["25000"]);
        client.batch_execute("ROLLBACK").expect("rollback");
    }
}

#[test]
fn tokens_of_other_readers_are_refused_by_ack() {
    let database = database("others_tokens");
    let mut client = database.connect();
    for org in ["acme", "other"] {
        store_placed(&mut client, org, &[("a", 20), ("b", 10)]);
    }
    for (name, arguments) in [
        ("c", "'acme'"),
        ("again", "'acme'"),
        ("timed", "'acme', order_by => 'event_time'"),
        ("theirs", "'other'"),
    ] {
        create(&mut client, &format!("'{name}', {arguments}"));
    }
    let mut token = |name: &str| fetched(&mut client, &format!("'{name}', 1"))[0].cursor.clone();
    let (again, timed, theirs) = (token("again"), token("timed"), token("theirs"));
    let paged = page(&mut client, "'acme', NULL, NULL")[0].cursor.clone();
    for (what, token, states) in [
        // Whose seek it might have been nobody can tell.
        ("of another cursor", &again, &["22023", "55000"][..]),
        ("of the other order", &timed, &["22023"]),
        ("of another org", &theirs, &["42501"]),
        ("of a page", &paged, &["22023"]),
    ] {
        refused(&format!("a token {what}"), ack(&mut client, "c", token), states);
    }
    refused("a token of a page", ack(&mut client, "timed", &paged), &["22023", "55000"]);
    // A cursor of the same name is another cursor.
    let old = fetched(&mut client, "'c', 1")[0].cursor.clone();
    client.batch_execute("SELECT ts_cursor_drop('c'), ts_cursor_create('c', 'acme')").expect("a new cursor");
    refused("a token of a dropped cursor", ack(&mut client, "c", &old), &["22023", "55000"]);
    assert_eq!(fetched(&mut client, "'c'").len(), 2);
}

#[test]
fn without_workers_what_needs_them_says_so_and_the_rest_works() {
    let elsewhere = Server::shared_with("cursors-late", |builder| builder.preload(&["timescaledb"]));
    for (server, name) in [(Server::shared("cursors-idle"), "idle"), (elsewhere, "late")] {
        let database = Database::new(&server, name);
        let mut client = database.connect();
        store(&mut client, "acme", &[("a", 20), ("b", 10)]);
        for call in ["ts_cursor_create('c', 'acme')", "ts_replay_live('acme', now() - interval '1 hour')"] {
            let error = refused(call, client.execute(&format!("SELECT {call}"), &[]), &["55000"]);
            assert!(error.hint().is_some(), "{call}: a hint says what is missing");
        }
        create(&mut client, "'c', 'acme', order_by => 'event_time'");
        refused("a fetch that waits", fetch(&mut client, "'c', timeout => '1 s'"), &["55000"]);
        // Without positions nobody can tell whether something was lost since the cursor began.
        let rows = fetched(&mut client, "'c', 1, auto_ack => true");
        assert_eq!(rows.last().map(Fetched::label).as_deref(), Some("a"));
        assert_eq!(labels(&fetched(&mut client, "'c'")), ["b"]);
    }
}
