//! Databases and the extension come, go, are renamed and copied, with workers connected.

use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::mirror::{make_chunks, some_events};
use tailstream_e2e::positions::{check_positions, soon_placed};
use tailstream_e2e::{Mirror, Server};

use crate::{at_once, wait_for_none, wait_for_workers};

#[test]
fn a_database_is_dropped_and_renamed_at_once() {
    let mirror = Mirror::with(
        "workers-databases",
        |cluster| cluster.setting("tailstream.databases", "app, renamed, second"),
        |redis| redis,
    );
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.settle(&["acme"]);
    drop(sides);
    let mut client = mirror.cluster.connect("postgres").expect("a connection");
    wait_for_workers(&mut client, "app");
    // TimescaleDB's own worker is in the way of this one, unless it is told to stay away.
    mirror
        .connect()
        .batch_execute("SELECT _timescaledb_functions.stop_background_workers()")
        .expect("no worker");
    at_once(&mut client, "ALTER DATABASE app RENAME TO renamed");
    wait_for_workers(&mut client, "renamed");
    let mut inside = mirror.cluster.connect("renamed").expect("a connection");
    let batch = ingest(&mut inside, "acme", &some_events(2), None).expect("ingest").batch_id;
    soon_placed(&mut inside, batch);
    check_positions(&mut inside);
    for round in 0..3 {
        at_once(&mut client, "CREATE DATABASE second TEMPLATE template0");
        wait_for_workers(&mut client, "second");
        if round > 0 {
            let mut inside = mirror.cluster.connect("second").expect("a connection");
            inside.batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
            make_chunks(&mut inside);
        }
        at_once(
            &mut client,
            if round == 2 { "DROP DATABASE second WITH (FORCE)" } else { "DROP DATABASE second" },
        );
    }
}

#[test]
fn a_database_is_copied_at_once_and_what_fails_leaves_the_workers() {
    // TimescaleDB's own worker would be in the way, and lets nobody tell it to stay away from an empty database.
    let cluster = Server::create("workers-copied", |builder| {
        builder.preload(&["tailstream"]).setting("tailstream.databases", "original, copied, renamed")
    });
    let mut client = cluster.connect("postgres").expect("a connection");
    client.batch_execute("CREATE DATABASE original TEMPLATE template0").expect("a database");
    wait_for_workers(&mut client, "original");
    at_once(&mut client, "CREATE DATABASE copied TEMPLATE original");
    wait_for_workers(&mut client, "original");
    wait_for_workers(&mut client, "copied");
    at_once(&mut client, "ALTER DATABASE copied RENAME TO renamed");
    wait_for_workers(&mut client, "renamed");
    let inside = cluster.connect("renamed").expect("a connection");
    client.batch_execute("DROP DATABASE renamed").expect_err("somebody is connected");
    drop(inside);
    wait_for_workers(&mut client, "renamed");
    // Both come back, also if the transaction changes its mind.
    at_once(
        &mut client,
        "BEGIN; ALTER DATABASE original RENAME TO unknown; ALTER DATABASE renamed RENAME TO copied; ROLLBACK",
    );
    wait_for_workers(&mut client, "original");
    wait_for_workers(&mut client, "renamed");
    at_once(&mut client, "DROP DATABASE renamed");
}

#[test]
fn the_extension_goes_and_comes_back_and_the_workers_with_it() {
    let mirror = Mirror::new("workers-extension");
    let mut sides = mirror.sides();
    sides.ingest("acme", 5);
    sides.settle(&["acme"]);
    for _ in 0..2 {
        at_once(&mut sides.client, "DROP EXTENSION tailstream");
        at_once(&mut sides.client, "CREATE EXTENSION tailstream");
        sides.ingest("acme", 3);
        sides.settle(&["acme"]);
    }
    at_once(&mut sides.client, "BEGIN; DROP EXTENSION tailstream");
    at_once(&mut sides.client, "ROLLBACK");
    sides.ingest("acme", 1);
    sides.settle(&["acme"]);
    assert_eq!(sides.length("acme"), 12);
    check_positions(&mut sides.client);
    // Without its tables there is nothing to do, and that is no error.
    at_once(&mut sides.client, "DROP EXTENSION tailstream; DROP SCHEMA tailstream CASCADE");
    at_once(&mut sides.client, "CREATE EXTENSION tailstream");
    make_chunks(&mut sides.client);
    sides.ingest("acme", 2);
    let states: Vec<String> =
        column(&mut sides.client, "SELECT status FROM ts_health() WHERE component = 'sequencer'");
    assert_eq!(states, ["ok"]);
    sides.settle(&["acme"]);
    assert_eq!(sides.length("acme"), 2, "the old stream went with the old tables");
}

#[test]
fn a_reload_adds_and_removes_databases() {
    let mirror = Mirror::new("workers-reload");
    let mut client = mirror.connect();
    mirror.cluster.create_database("later").expect("a database");
    let mut inside = mirror.cluster.connect("later").expect("a connection");
    inside.batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    make_chunks(&mut inside);
    wait_for_workers(&mut client, "app");
    mirror.set("tailstream.databases", " later ,, nowhere");
    wait_for_workers(&mut client, "later");
    wait_for_none(&mut client, "app");
    let batch = ingest(&mut inside, "globex", &some_events(1), None).expect("ingest").batch_id;
    soon_placed(&mut inside, batch);
    let status = "SELECT * FROM ts_mirror_status()";
    assert_eq!(
        client.query(status, &[]).expect_err("no workers here").code().map(|code| code.code()),
        Some("55000")
    );
    let mut sides = mirror.sides();
    sides.ingest("acme", 4);
    mirror.set("tailstream.databases", "app,later");
    wait_for_workers(&mut client, "app");
    sides.settle(&["acme"]);
    mirror.set("tailstream.databases", "");
    wait_for_none(&mut client, "app");
    wait_for_none(&mut client, "later");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'tailstream%'";
    assert_eq!(one::<i64>(&mut client, left), 1, "the launcher");
}
