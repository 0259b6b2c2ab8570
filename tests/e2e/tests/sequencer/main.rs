//! The sequencer: one order of all committed batches, for which nobody waits. No Redis is needed for it.

mod bystanders;
mod order;
mod survival;
mod upkeep;

use tailstream_e2e::mirror::make_chunks;
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server};

/// A database with a sequencer; every test's is named here.
fn database(name: &str) -> Database {
    let database = empty_database(name);
    make_chunks(&mut database.connect());
    database
}

/// The same without a single chunk.
fn empty_database(name: &str) -> Database {
    const NAMES: &str = "every, idle, prepared, elsewhere, huge, interleaved, new_chunks, no_dead_rows, kept, \
                         unplaced, erased, in_order, anew, waited_for, border, unmade";
    assert!(NAMES.split(", ").any(|known| known == name), "{name} has no sequencer");
    let server = Server::shared_with("sequencer", |builder| {
        builder
            .preload(&PRELOAD)
            // What waits for ever shall fail; it is not meant for workers.
            .setting("statement_timeout", "60s")
            .setting("max_prepared_transactions", "10")
            // Events of the next hours are stored now.
            .setting("tailstream.max_future_skew", "3h")
            .setting("tailstream.databases", NAMES)
    });
    Database::new(&server, name)
}
