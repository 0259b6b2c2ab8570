//! A cursor that moves all the time stays small.

use std::thread;
use std::time::Instant;

use postgres::{Client, NoTls};
use tailstream_devkit::Cluster;
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_e2e::Server;
use tailstream_e2e::database::{config, one};
use tailstream_e2e::positions::{soon_placed, wait_until_all_placed};
use tailstream_e2e::server::PRELOAD;

use crate::{LONG, ORDERS, create, cursor_table};

/// Events, each fetched and acknowledged by a transaction of its own in each order.
const ACKS: i64 = 12_000;
const MEGABYTE: i64 = 1 << 20;

/// A server of its own: PostgreSQL keeps old versions of rows as long as any transaction on it has not ended.
fn server() -> Cluster {
    let cluster = Server::create("cursors-size", |builder| {
        builder.preload(&PRELOAD).setting("tailstream.databases", "app")
    });
    cluster.create_database("app").expect("a database");
    connect(&cluster).batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    cluster
}

fn connect(cluster: &Cluster) -> Client {
    config(cluster, "app", SUPERUSER).connect(NoTls).expect("a connection")
}

#[test]
fn tens_of_thousands_of_acks_leave_a_small_table() {
    let cluster = server();
    let mut client = connect(&cluster);
    let sql = format!(
        "SELECT batch_id FROM ts_ingest('acme', (SELECT json_agg(json_build_object('path', n::text)) FROM generate_series(1, {ACKS}) n))"
    );
    let batch = one(&mut client, &sql);
    soon_placed(&mut client, batch);
    wait_until_all_placed(&mut client, LONG);
    for order in ORDERS {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
    }
    thread::scope(|scope| {
        for order in ORDERS {
            let mut client = connect(&cluster);
            scope.spawn(move || consume(&mut client, order));
        }
    });
    assert_eq!(one::<i64>(&mut client, "SELECT sum(lag_events)::bigint FROM tailstream.cursors"), 0);
    let table = cursor_table(&mut client);
    let size: i64 = one(&mut client, &format!("SELECT pg_total_relation_size('{table}')"));
    println!("{} acks, {size} bytes", 2 * ACKS);
    assert!(size < MEGABYTE, "the table of two cursors has {size} bytes after {} acks", 2 * ACKS);
}

fn consume(client: &mut Client, order: &str) {
    // What is acknowledged here need not be on disk.
    client.batch_execute("SET synchronous_commit = off").expect("a setting");
    let sql = format!("SELECT id FROM ts_cursor_fetch('{order}', 1, auto_ack => true)");
    let fetch = client.prepare(&sql).expect("a statement");
    let began = Instant::now();
    for done in 0..ACKS {
        assert_eq!(client.query(&fetch, &[]).expect("a fetch").len(), 1, "{order}: after {done}");
    }
    println!("{order}: {:?} a fetch", began.elapsed() / ACKS as u32);
}
