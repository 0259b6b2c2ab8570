//! A session bound to an org sees and touches that org's cursors alone.

use postgres::Client;
use tailstream_e2e::cursor::{ack, fetch, fetched, labels};
use tailstream_e2e::database::column;
use tailstream_e2e::{Database, refused};

use crate::{ORDERS, create, database, run, store_placed};

fn prepare(name: &str) -> (Database, Client, Client) {
    let database = database(name);
    let mut client = database.connect();
    let role = database.login_role("bound", &["tailstream_reader"]);
    client.batch_execute(&format!("ALTER ROLE {role} SET tailstream.org = 'acme'")).expect("a bound role");
    for org in ["acme", "other"] {
        store_placed(&mut client, org, &[(&format!("{org} a"), 20), (&format!("{org} b"), 10)]);
        for order in ORDERS {
            create(&mut client, &format!("'{order}', '{org}', order_by => '{order}'"));
        }
        create(&mut client, &format!("'of {org}', '{org}'"));
    }
    let bound = database.connect_as(&role);
    (database, client, bound)
}

#[test]
fn a_bound_session_uses_its_own_cursors_whatever_others_have() {
    let (_database, mut client, mut bound) = prepare("bound");
    let seen: Vec<String> =
        column(&mut bound, "SELECT org_id || ' ' || name FROM tailstream.cursors ORDER BY 1");
    assert_eq!(seen, ["acme arrival", "acme event_time", "acme of acme"]);
    for order in ORDERS {
        // Two orgs have it, but for this session there is one.
        let rows = fetched(&mut bound, &format!("'{order}'"));
        assert_eq!(labels(&rows), ["acme a", "acme b"]);
        assert!(ack(&mut bound, order, &rows[0].cursor).expect("an ack"));
        assert_eq!(labels(&fetched(&mut bound, &format!("'{order}', org => 'acme'"))), ["acme b"]);
        run(&mut bound, &format!("ts_cursor_seek('{order}', 'now')"));
        assert_eq!(fetched(&mut bound, &format!("'{order}'")), []);
        let others = fetched(&mut client, &format!("'{order}', org => 'other'"));
        assert_eq!(labels(&others), ["other a", "other b"], "{order}: the other one did not move");
        let foreign = format!("SELECT ts_cursor_ack('{order}', '{}')", others[0].cursor);
        refused("a token of another org", bound.execute(&foreign, &[]), &["42501"]);
        run(&mut bound, &format!("ts_cursor_drop('{order}')"));
        assert_eq!(fetched(&mut client, &format!("'{order}'")).len(), 2, "the other one is there");
        refused("its own is gone", fetch(&mut bound, &format!("'{order}'")), &["42704"]);
        create(&mut bound, &format!("'{order}', 'acme', order_by => '{order}'"));
    }
}

#[test]
fn a_bound_session_cannot_reach_another_orgs_cursors() {
    let (_database, mut client, mut bound) = prepare("out_of_reach");
    let token = fetched(&mut client, "'of other'")[0].cursor.clone();
    for (call, state) in [
        ("ts_cursor_create('x', 'other')", "42501"),
        ("ts_cursor_create('of other', 'other')", "42501"),
        ("ts_cursor_create('x', 'other', now())", "42501"),
        ("ts_cursor_create('x', 'never seen')", "42501"),
        ("ts_cursor_create('x', 'acme', start => '{token}')", "42501"),
        ("ts_cursor_fetch('of other')", "42704"),
        ("ts_cursor_fetch('arrival', org => 'other')", "42501"),
        ("ts_cursor_fetch('nope', org => 'other')", "42501"),
        ("ts_cursor_fetch('of other', org => 'acme')", "42704"),
        ("ts_cursor_ack('of other', '{token}')", "42704"),
        ("ts_cursor_ack('of other', '{token}', org => 'other')", "42501"),
        ("ts_cursor_ack('of acme', '{token}')", "42501"),
        ("ts_cursor_seek('of other', 'now')", "42704"),
        ("ts_cursor_seek('of other', now(), org => 'other')", "42501"),
        ("ts_cursor_seek('of acme', '{token}')", "42501"),
        ("ts_cursor_drop('of other')", "42704"),
        ("ts_cursor_drop('of other', org => 'other')", "42501"),
        ("ts_replay_page('other', NULL, NULL)", "42501"),
        ("ts_replay_live('other', now() - interval '1 hour')", "42501"),
    ] {
        let call = call.replace("{token}", &token);
        refused(&call, bound.execute(&format!("SELECT * FROM {call}"), &[]), &[state]);
    }
    let rows = fetched(&mut client, "'of other', auto_ack => true");
    assert_eq!(labels(&rows), ["other a", "other b"], "nothing of it moved anything");
    let probe = "SELECT count(*) FROM tailstream.cursors WHERE org_id <> 'acme'";
    assert_eq!(tailstream_e2e::database::one::<i64>(&mut bound, probe), 0);
}
