//! `INSERT INTO tailstream.log_events`: one statement is one batch, RETURNING shows what is stored, and whoever may only
//! write reads nothing.

mod bulk;
mod nesting;
mod replica;
mod returning;
mod suppressed;

use postgres::{Client, GenericClient};
use tailstream_e2e::database::one;
use tailstream_e2e::{Database, Server};

fn database(name: &str) -> Database {
    Database::new(&Server::shared("inserts"), name)
}

/// How many events there are with a path of this pattern.
#[track_caller]
fn stored(client: &mut impl GenericClient, like: &str) -> i64 {
    one(client, &format!("SELECT count(*) FROM tailstream.events WHERE path LIKE '{like}'"))
}

/// Events of each batch that the ledger has of an org, in the order of the batches.
#[track_caller]
fn batches(client: &mut Client, org: &str) -> Vec<i32> {
    let sql = format!("SELECT event_count FROM tailstream.batches WHERE org_id = '{org}' ORDER BY batch_id");
    tailstream_e2e::database::column(client, &sql)
}

/// Every event has its batch in the ledger, and every batch its events.
#[track_caller]
fn check_ledger(client: &mut Client) {
    let sql = "SELECT count(*) FROM tailstream.batches b FULL JOIN
                   (SELECT id >> 16 AS batch_id, count(*) AS events, min(org_id) AS org, max(org_id) AS other, min(tier) AS tier,
                           min(created_at) AS first, max(created_at) AS last, count(DISTINCT id) AS ids
                    FROM tailstream.events GROUP BY 1) e USING (batch_id)
               WHERE coalesce(b.event_count, -1) <> coalesce(e.events, 0) OR e.org <> b.org_id OR e.other <> b.org_id
                     OR e.first <> b.first_event_at OR e.last <> b.last_event_at OR e.ids <> e.events OR e.tier <> b.tier";
    assert_eq!(one::<i64>(client, sql), 0, "batches that are not what the ledger says");
}
