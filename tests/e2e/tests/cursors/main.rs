//! Durable cursors: they never skip, never repeat, and say what they could not show. No Redis is needed for it.

mod batches;
mod bound;
mod consumers;
mod crash;
mod dump;
mod erasure;
mod expiry;
mod filters;
mod gaps;
mod grants;
mod lag;
mod late_gaps;
mod lifecycle;
mod locks;
mod order;
mod refusals;
mod rewound;
mod size;
mod starts;
mod tiers;
mod tokens;
mod transactions;
mod waiting;
mod waiting_ends;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres::Client;
use tailstream_e2e::cursor::store;
use tailstream_e2e::database::{column, one, pid, wait_until_blocked};
use tailstream_e2e::mirror::make_chunks;
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server, eventually};

const LONG: Duration = Duration::from_secs(30);
/// Older than an hour and younger than three, in seconds: it is lost with `shorten`.
const OLD: i64 = 9_000;
const ORDERS: [&str; 2] = ["arrival", "event_time"];

/// A database with a sequencer; every test's is named here.
fn database(name: &str) -> Database {
    const NAMES: &str = "abandoned, abroad, all_lost, behind_gap, bound, bystanders, cancelled, columns, consumers, \
                         crowd, downgraded, empty_wait, erased, expiring, filter_wait, filtered, first_batches, \
                         forgotten, grants, had, held_up, home, huge, impatient, in_flight, \
                         in_use, lag, late, late_by_time, latecomers, left_alone, leaves, lengthened, let_in, live, \
                         many, moments, not_granted, newer, old_snapshots, one_by_one, other_orgs, \
                         others_tokens, out_of_reach, overtaken, part, partly, passed, polled, positions, \
                         purged_wait, quiet, refused, renewed, revived, replaced, rescued, rescuing, resumed, \
                         reused, savepoints, scattered, seeks, sequencer_gone, several, snapshots, spanned, \
                         started, ties, timed, told_once, tokens, two_phases, undone, undone_parts, unfinished, unheard, \
                         unmissed, viewed, waited_for, waiting, waits";
    prepared("cursors", NAMES, name)
}

/// A database on a server whose settings a test may change, alone meanwhile.
fn database_with_settings(name: &str) -> (MutexGuard<'static, ()>, Database) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    (alone, prepared("cursor-settings", "for_ever, hoarding, patient, rush", name))
}

fn prepared(server: &'static str, sequenced: &str, name: &str) -> Database {
    assert!(sequenced.split(", ").any(|known| known == name), "{name} has no sequencer");
    let server = Server::shared_with(server, |builder| {
        builder
            .preload(&PRELOAD)
            // What waits for ever shall fail; it is not meant for workers.
            .setting("statement_timeout", "60s")
            .setting("max_prepared_transactions", "10")
            .setting("tailstream.databases", sequenced)
    });
    let database = Database::new(&server, name);
    let mut client = database.connect();
    make_chunks(&mut client);
    // The launcher looks for new databases every two seconds, and at a reload.
    client.batch_execute("SELECT pg_reload_conf()").expect("a reload");
    // The chunks of the last hours are there as well: who makes one keeps others waiting until its commit.
    store_placed(&mut client, "first", &[("first", 0), ("first", 3_600), ("first", 7_200)]);
    database
}

/// Stores a batch and waits for its place.
#[track_caller]
fn store_placed(client: &mut Client, org: &str, events: &[(&str, i64)]) -> i64 {
    let batch = store(client, org, events);
    soon_placed(client, batch);
    batch
}

#[track_caller]
fn create(client: &mut Client, arguments: &str) {
    run(client, &format!("ts_cursor_create({arguments})"));
}

/// Calls a function that has to succeed.
#[track_caller]
fn run(client: &mut Client, call: &str) {
    client.batch_execute(&format!("SELECT {call}")).unwrap_or_else(|error| panic!("{call}: {error:?}"));
}

/// Waits until a session waits inside a fetch, for events and not for a lock.
#[track_caller]
fn wait_until_idle(client: &mut Client, waiter: i32) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {waiter} AND state = 'active'
             AND query LIKE '%ts_cursor_fetch%' AND wait_event_type IN ('Extension', 'IPC', 'Activity', 'Timeout')"
    );
    eventually(&format!("session {waiter} to wait for events"), LONG, || {
        (one::<i64>(client, &sql) == 1).then_some(())
    });
}

/// Gives tier standard one hour and purges: events of age `OLD` are gone.
#[track_caller]
fn shorten(client: &mut Client) {
    run(client, "ts_alter_tier('standard', '1 hour')");
    let old =
        "SELECT count(*) FROM tailstream.events WHERE tier = 1 AND created_at < now() - interval '2 hours'";
    eventually("the purge of what is old", LONG, || {
        client.execute("SELECT * FROM ts_apply_retention()", &[]).expect("the purge");
        (one::<i64>(client, old) == 0).then_some(())
    });
}

/// The table that holds the cursors, whatever its name.
fn cursor_table(client: &mut Client) -> String {
    let tables: Vec<String> = column(
        client,
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'tailstream'::regnamespace AND c.relkind = 'r' AND a.attname = 'last_active'",
    );
    assert_eq!(tables.len(), 1, "tables of cursors: {tables:?}");
    tables[0].clone()
}

/// Lets a cursor be as if nobody had used it for so long.
#[track_caller]
fn age(client: &mut Client, name: &str, interval: &str) {
    let table = cursor_table(client);
    let sql = format!("UPDATE {table} SET last_active = now() - interval '{interval}' WHERE name = '{name}'");
    assert_eq!(client.execute(&sql, &[]).expect("an older cursor"), 1, "{name}");
}
