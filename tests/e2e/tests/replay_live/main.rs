//! From history into live by the documented protocol: every event is handed over once, or its loss is reported.

mod account;
mod chaos;
mod client;
mod crowd;
mod disconnects;
mod gaps;
mod handover;
mod outages;
mod overtaken;
mod reader;
mod refusals;
mod switched;

use std::sync::Arc;

use tailstream_devkit::Redis;
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_e2e::database::config;
use tailstream_e2e::mirror::make_chunks;
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Mirror, Server, Sides};

use crate::reader::Source;

/// The databases of tests that share a server and a Redis.
const NAMES: &str = "handover, crowd, quiet_org, open_end, limited, small, aged, left, hidden, away, erased, unmirrored, toggled, \
                     refused, future";
const KEYS: &str = "l:{database}:{{org}}";
const ORG: &str = "acme";

/// The shared server's Redis.
fn redis() -> Arc<Redis> {
    Server::shared_redis("live")
}

fn server() -> Server {
    Server::shared_with("live", |builder| {
        builder
            .preload(&PRELOAD)
            // What waits for ever shall fail; it is not meant for workers.
            .setting("statement_timeout", "60s")
            .setting("tailstream.databases", NAMES)
            .setting("tailstream.redis_url", &redis().url())
            .setting("tailstream.stream_key", KEYS)
    })
}

/// A mirrored database with one org, seen from both sides, and how readers connect to it.
fn scene(name: &str) -> (Database, Sides, Source) {
    assert!(NAMES.split(", ").any(|known| known == name), "{name} has no mirror");
    let database = Database::new(&server(), name);
    make_chunks(&mut database.connect());
    let sides = Sides::new(database.connect(), &redis(), &format!("l:{name}:{{{{org}}}}"));
    let source = Source::new(database.config(SUPERUSER), &redis(), ORG);
    (database, sides, source)
}

/// How readers connect to a server of a test's own.
fn source(mirror: &Mirror) -> Source {
    Source::new(config(&mirror.cluster, mirror.database, SUPERUSER), &mirror.redis, ORG)
}
