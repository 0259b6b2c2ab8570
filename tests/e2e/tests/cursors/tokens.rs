//! Tokens cannot be made, changed or taken elsewhere.

use postgres::Client;
use tailstream_e2e::cursor::{ack, fetched, labels, page};
use tailstream_e2e::database::column;
use tailstream_e2e::refused;

use crate::{ORDERS, create, database, store_placed};

const INVALID: &str = "token is not valid";

/// Every way to use a token fails, and says that it is none.
#[track_caller]
fn invalid(client: &mut Client, what: &str, token: &str) {
    let token = token.replace('\'', "''");
    for call in [
        format!("ts_cursor_ack('arrival', '{token}')"),
        format!("ts_cursor_ack('event_time', '{token}')"),
        format!("ts_replay_page('acme', NULL, NULL, after => '{token}')"),
    ] {
        let error = refused(what, client.execute(&format!("SELECT * FROM {call}"), &[]), &["22023"]);
        assert!(error.message().contains(INVALID), "{what}: {}", error.message());
    }
}

fn prepare(client: &mut Client) {
    store_placed(client, "acme", &[("a", 20), ("b", 10), ("c", 0)]);
    for order in ORDERS {
        create(client, &format!("'{order}', 'acme', order_by => '{order}'"));
    }
}

fn tokens(client: &mut Client) -> Vec<String> {
    let fetches = ORDERS.map(|order| fetched(client, &format!("'{order}', 1")));
    let pages = [page(client, "'acme', NULL, NULL, page_size => 1")];
    fetches.iter().chain(&pages).map(|rows| rows[0].cursor.clone()).collect()
}

#[test]
fn a_token_with_one_character_changed_is_not_valid() {
    let database = database("tokens");
    let mut client = database.connect();
    prepare(&mut client);
    for token in tokens(&mut client) {
        for (place, found) in token.char_indices() {
            // Every bit of a character, and so also those of the last one that carry nothing.
            for bit in 0..6 {
                let mut changed = token.clone();
                changed.replace_range(place..=place, &flipped(found, bit).to_string());
                invalid(&mut client, &format!("{token} as {changed}"), &changed);
            }
        }
        for length in 0..token.len() {
            invalid(&mut client, &format!("{token} cut to {length}"), &token[..length]);
        }
        for (before, after) in [("", "A"), ("", "="), ("", " "), ("A", ""), ("", "\n"), ("", "é")] {
            let longer = format!("{before}{token}{after}");
            invalid(&mut client, &longer, &longer);
        }
        invalid(&mut client, "a token twice", &format!("{token}{token}"));
    }
    invalid(&mut client, "very much text", &"A".repeat(100_000));
    // None of it has moved anything, and the tokens themselves are as good as ever.
    for order in ORDERS {
        let rows = fetched(&mut client, &format!("'{order}'"));
        assert_eq!(labels(&rows), ["a", "b", "c"]);
        assert!(ack(&mut client, order, &rows[0].cursor).expect("an ack"));
    }
}

/// The character of base64url that differs in one bit of its value.
fn flipped(found: char, bit: usize) -> char {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = ALPHABET.iter().position(|c| char::from(*c) == found).expect("a character of base64url");
    char::from(ALPHABET[value ^ (1 << bit)])
}

#[test]
fn a_token_of_another_database_is_not_valid() {
    let (here, there) = (database("home"), database("abroad"));
    let (mut client, mut other) = (here.connect(), there.connect());
    for client in [&mut client, &mut other] {
        prepare(client);
    }
    for (number, token) in tokens(&mut other).iter().enumerate() {
        invalid(&mut client, &format!("token {number} of another database"), token);
        for order in ORDERS {
            let create =
                format!("SELECT ts_cursor_create('new', 'acme', start => '{token}', order_by => '{order}')");
            refused(&create, client.execute(&create, &[]), &["22023"]);
        }
    }
    assert_eq!(
        column::<String>(&mut client, "SELECT name FROM tailstream.cursors WHERE name = 'new'").len(),
        0
    );
}
