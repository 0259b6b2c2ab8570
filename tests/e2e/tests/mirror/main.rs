//! Committed events appear in the stream of their org: contents, order, limits, switches, and what the functions
//! report.

mod arguments;
mod entries;
mod history;
mod purged;
mod status;
mod switches;
mod trimming;
mod verify;

use std::sync::Arc;

use tailstream_devkit::Redis;
use tailstream_e2e::mirror::make_chunks;
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server, Sides};

/// The databases of the tests that share a server and a Redis.
const NAMES: &str = "documents, orgs, commits, large, blocked, by_count, by_age, limits, retiered, upgraded, requests, switched, \
                     backfilled, open, reported, found, erased, tidy, twin_a, twin_b, undecided, prepared, for_ever, history, \
                     arguments, longest, endless";
const KEYS: &str = "m:{database}:{{org}}";

/// The shared server's Redis.
fn redis() -> Arc<Redis> {
    Server::shared_redis("mirror")
}

fn database(name: &str) -> (Database, Sides) {
    assert!(NAMES.split(", ").any(|known| known == name), "{name} has no mirror");
    let server = Server::shared_with("mirror", |builder| {
        builder
            .preload(&PRELOAD)
            // A statement that waits without end fails. The timeout must not affect workers.
            .setting("statement_timeout", "60s")
            .setting("max_prepared_transactions", "5")
            .setting("tailstream.databases", NAMES)
            .setting("tailstream.redis_url", &redis().url())
            .setting("tailstream.stream_key", KEYS)
    });
    let database = Database::new(&server, name);
    make_chunks(&mut database.connect());
    let sides = sides(&database);
    (database, sides)
}

/// A second pair of connections to a mirrored database.
fn sides(database: &Database) -> Sides {
    Sides::new(database.connect(), &redis(), &format!("m:{}:{{{{org}}}}", database.name))
}
