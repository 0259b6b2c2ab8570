//! The errors that the protocol tells clients of.

use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::{Database, refused};

use crate::{ORG, scene, server};

#[test]
fn each_mistake_has_the_error_that_the_document_says() {
    let (database, mut sides, _) = scene("refused");
    sides.ingest(ORG, 3);
    sides.wait_until_placed();
    let token: String = one(&mut sides.client, "SELECT cursor FROM ts_replay_live('acme')");
    let (rest, last) = token.split_at(token.len() - 1);
    let damaged = format!("{rest}{}", if last == "x" { "y" } else { "x" });
    let page = |org: &str, token: &str| {
        format!("SELECT * FROM ts_replay_page('{org}', NULL, NULL, after => '{token}', page_size => 10)")
    };
    let mut wrong = vec![
        ("SELECT * FROM ts_replay_live(NULL)".to_owned(), "22004"),
        ("SELECT * FROM ts_replay_live('acme', now() - interval '4 hours')".to_owned(), "22008"),
        (page("acme", &damaged), "22023"),
        (page("acme", ""), "22023"),
        (page("other", &token), "42501"),
        (page("acme", &token).replace("=> 10", "=> 0"), "22023"),
        (page("acme", &token).replace("=> 10", "=> 10, direction => 'backward'"), "22023"),
    ];
    for id in ["", "x-1", "1-", "-1", "1-2-3", " 1-2", "1--2", "99999999999999999999-0"] {
        wrong.push((format!("SELECT * FROM ts_replay_live('acme', resume_after => '{id}')"), "22023"));
    }
    for (sql, state) in &wrong {
        refused(sql, sides.client.batch_execute(sql), &[state]);
    }
    assert_eq!(
        column::<i64>(&mut sides.client, &format!("SELECT id FROM ({}) p", page("acme", &token))).len(),
        3
    );

    let bound = database.login_role("bound", &["tailstream_reader"]);
    sides
        .client
        .batch_execute(&format!("ALTER ROLE {bound} SET tailstream.org = 'other'"))
        .expect("a binding");
    let mut bound = database.connect_as(&bound);
    for sql in ["SELECT * FROM ts_replay_live('acme')".to_owned(), page("acme", &token)] {
        refused(&sql, bound.batch_execute(&sql), &["42501"]);
    }
}

#[test]
fn without_workers_there_is_no_boundary() {
    let database = Database::new(&server(), "idle");
    let mut client = database.connect();
    ingest(&mut client, ORG, &some_events(3), None).expect("ingest");
    let sql = "SELECT * FROM ts_replay_live('acme')";
    refused(sql, client.batch_execute(sql), &["55000"]);
}

#[test]
fn an_id_from_the_future_is_no_reason_to_go_back() {
    let (_database, mut sides, _) = scene("future");
    sides.ingest(ORG, 3);
    sides.wait_until_placed();
    let sql = "SELECT count(*) FROM ts_replay_live('acme', resume_after => '9999999999999-7') AS again,
               ts_replay_page('acme', NULL, NULL, after => again.cursor) AS p";
    assert_eq!(one::<i64>(&mut sides.client, sql), 0);
}
