//! A page's rows are those of the table, whatever they hold and however the table was changed since they were stored.

use postgres::Client;
use tailstream_devkit::event::{json_array, now_micros};
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::document::event;
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::{Database, Random};

use crate::MINUTE;

/// Events of each org that are stored at a time.
const EVENTS: usize = 40;

const COLUMNS: &str =
    "r.id, r.created_at, r.org_id, r.host, r.method, r.path, r.status, r.response_time, r.response_size,
    r.user_agent, r.referrer, r.ip_address, r.metadata";

/// Org ids on both sides of the length from which a text has another header.
fn orgs() -> Vec<String> {
    [1, 2, 3, 4, 7, 125, 126, 127, 128, 255].map(|length| "o".repeat(length)).to_vec()
}

/// Stores events of all shapes, and waits until they have their places.
fn store(client: &mut Client, random: &mut Random) {
    for org in orgs() {
        let now = now_micros();
        let mut some = |_| {
            let at = now - random.between(0, 30 * MINUTE);
            event(random, at)
        };
        let events: Vec<String> = (0..EVENTS).map(&mut some).collect();
        let done = ingest(client, &org, &json_array(&events), None).expect("ingest");
        soon_placed(client, done.batch_id);
    }
}

/// Whatever a page or a fetch returns is what the view shows.
#[track_caller]
fn check(client: &mut Client, what: &str) {
    for org in orgs() {
        let all = |source: &str, order: &str| {
            format!("SELECT ROW({COLUMNS})::text FROM {source} r WHERE r.org_id = '{org}' ORDER BY {order}")
        };
        let expected: Vec<String> = column(client, &all("tailstream.log_events", "r.created_at, r.id"));
        assert!(!expected.is_empty(), "{what}: nothing of {org}");
        for direction in ["forward", "backward"] {
            let page = format!(
                "ts_replay_page('{org}', NULL, NULL, page_size => 100000, direction => '{direction}')"
            );
            let found: Vec<String> = column(client, &all(&page, "r.created_at, r.id"));
            assert_eq!(found, expected, "{what}, {direction}: {org}");
        }
        let expected: Vec<String> = column(client, &all("tailstream.log_events", "r.id"));
        client.execute("SELECT ts_cursor_create('shapes', $1)", &[&org]).expect("a cursor");
        // Some at a time, so that all kinds of rows come first and last.
        let mut found: Vec<String> = Vec::new();
        loop {
            let fetch = "ts_cursor_fetch('shapes', 7, auto_ack => true)";
            let rows: Vec<String> = column(client, &format!("SELECT ROW({COLUMNS})::text FROM {fetch} r"));
            if rows.is_empty() {
                break;
            }
            found.extend(rows);
        }
        assert_eq!(found, expected, "{what}, by arrival: {org}");
        let places: i64 = one(
            client,
            &format!(
                "SELECT count(DISTINCT r.cursor) FROM ts_replay_page('{org}', NULL, NULL, page_size => 100000) r
                 WHERE r.kind = 'event' AND num_nulls(r.gap_from, r.gap_to, r.gap_reason) = 3"
            ),
        );
        assert_eq!(places, expected.len() as i64, "{what}: a token for each event of {org}");
        client.execute("SELECT ts_cursor_drop('shapes')", &[]).expect("no cursor");
    }
}

fn prepare(name: &str) -> (Database, Client, Random) {
    let database = crate::placed_database(name);
    let mut client = database.connect();
    let mut random = Random::new(name);
    store(&mut client, &mut random);
    (database, client, random)
}

#[test]
fn rows_of_all_shapes_come_as_they_are() {
    let (_database, mut client, _) = prepare("shapes");
    let toasted: i64 = one(
        &mut client,
        "SELECT sum(pg_relation_size(c.reltoastrelid))::bigint FROM show_chunks('tailstream.events') s JOIN pg_class c ON c.oid = s",
    );
    assert!(toasted > 0, "nothing is out of line");
    check(&mut client, "as they were stored");
    client.batch_execute("VACUUM FREEZE").expect("VACUUM");
    check(&mut client, "frozen");
}

#[test]
fn columns_that_come_and_go_change_nothing() {
    let (_database, mut client, mut random) = prepare("altered");
    let mut alter = |client: &mut Client, what: &str| {
        client.batch_execute(&format!("ALTER TABLE tailstream.events {what}")).expect(what);
        check(client, what);
        store(client, &mut random);
        check(client, &format!("{what}, with events from before and after"));
    };
    alter(&mut client, "ADD COLUMN extra text DEFAULT 'a default that older rows have not got'");
    alter(&mut client, "ADD COLUMN more integer");
    alter(&mut client, "DROP COLUMN extra");
    alter(&mut client, "DROP COLUMN more");
}
