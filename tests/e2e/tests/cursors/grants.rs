//! Readers use cursors, and nobody reads what is behind them.

use tailstream_e2e::cursor::{ack, fetched, labels};
use tailstream_e2e::refused;

use crate::{ORDERS, create, cursor_table, database, run, store_placed};

const CALLS: [&str; 10] = [
    "ts_cursor_create('x', 'acme')",
    "ts_cursor_create('x', 'acme', now())",
    "ts_cursor_fetch('arrival')",
    "ts_cursor_ack('arrival', 'x')",
    "ts_cursor_seek('arrival', 'now')",
    "ts_cursor_seek('arrival', now())",
    "ts_cursor_drop('arrival')",
    "ts_replay_page('acme', NULL, NULL)",
    "ts_replay_live('acme', now() - interval '1 hour')",
    "ts_replay_schedule('acme', now() - interval '1 hour', now())",
];

#[test]
fn a_reader_does_everything_and_sees_no_table() {
    let database = database("grants");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 20), ("b", 10)]);
    let role = database.login_role("reader", &["tailstream_reader"]);
    let mut reader = database.connect_as(&role);
    for order in ORDERS {
        create(&mut reader, &format!("'{order}', 'acme', order_by => '{order}'"));
        let rows = fetched(&mut reader, &format!("'{order}', timeout => '10 ms'"));
        assert_eq!(labels(&rows), ["a", "b"]);
        assert!(ack(&mut reader, order, &rows[1].cursor).expect("an ack"));
        assert_eq!(fetched(&mut reader, &format!("'{order}', timeout => '10 ms'")), []);
        run(&mut reader, &format!("ts_cursor_seek('{order}', now())"));
        reader.execute("SELECT * FROM tailstream.cursors", &[]).expect("the view");
        run(&mut reader, &format!("ts_cursor_drop('{order}')"));
    }
    create(&mut reader, "'arrival', 'acme'");
    reader.execute("SELECT * FROM ts_replay_page('acme', NULL, NULL)", &[]).expect("a page");
    for call in &CALLS[8..] {
        reader.execute(&format!("SELECT * FROM {call}"), &[]).expect(call);
    }
    let admin = database.login_role("admin", &["tailstream_admin"]);
    let mut admin = database.connect_as(&admin);
    let table = cursor_table(&mut client);
    for client in [&mut reader, &mut admin] {
        for statement in [
            "SELECT * FROM tailstream.token_key".to_owned(),
            "UPDATE tailstream.token_key SET ctid = ctid".to_owned(),
            "DELETE FROM tailstream.token_key".to_owned(),
            "TRUNCATE tailstream.token_key".to_owned(),
            "COPY tailstream.token_key TO STDOUT".to_owned(),
            "DELETE FROM tailstream.cursors".to_owned(),
            format!("UPDATE {table} SET name = 'x'"),
            format!("DELETE FROM {table}"),
            format!("SELECT * FROM {table} FOR UPDATE"),
        ] {
            let tried = client.batch_execute(&statement);
            refused(&statement, tried, &["42501", "55000", "42703", "0A000"]);
        }
        let tried = client.batch_execute("SELECT * FROM tailstream.token_key");
        refused("the key", tried, &["42501"]);
    }
}

#[test]
fn who_is_no_reader_has_no_cursors() {
    let database = database("not_granted");
    let mut client = database.connect();
    store_placed(&mut client, "acme", &[("a", 20)]);
    create(&mut client, "'arrival', 'acme'");
    let roles = [database.login_role("writer", &["tailstream_writer"]), database.login_role("nobody", &[])];
    for role in &roles {
        let mut client = database.connect_as(role);
        for call in CALLS {
            let tried = client.execute(&format!("SELECT * FROM {call}"), &[]);
            refused(&format!("{role}: {call}"), tried, &["42501"]);
        }
        let view = client.execute("SELECT * FROM tailstream.cursors", &[]);
        refused(&format!("{role}: the view"), view, &["42501"]);
    }
    assert_eq!(labels(&fetched(&mut client, "'arrival'")), ["a"]);
}
