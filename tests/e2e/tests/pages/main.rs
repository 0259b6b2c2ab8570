//! Replay by pages and by a schedule: every event once, whoever asks and however often, and a gap where events are gone.

mod arguments;
mod clock;
mod conservative;
mod filter;
mod filters;
mod forgery;
mod gaps;
mod ledger;
mod model;
mod page;
mod paging;
mod plan;
mod planning;
mod plans;
mod playing;
mod purging;
mod regained;
mod rights;
mod schedule;
mod schedule_arguments;
mod shapes;
mod spying;
mod streaming;
mod stretches;
mod tail;
mod tokens;

use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server};

const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;

/// The databases that have a sequencer, and with it positions.
const PLACED: &str = "paging, resumed, hidden, simultaneous, quiet, chained, ranges, scheduled_gap, upgraded, \
                      purged, forgotten, regained, survivors, undone, erased, orders, shapes, altered";

fn server() -> Server {
    Server::shared_with("pages", |builder| {
        builder
            .preload(&PRELOAD)
            // What waits for ever shall fail; it is not meant for workers.
            .setting("statement_timeout", "60s")
            .setting("tailstream.databases", PLACED)
    })
}

fn has_sequencer(database: &str) -> bool {
    PLACED.split(", ").any(|placed| placed == database)
}

/// A database without workers.
fn database(name: &str) -> Database {
    assert!(!has_sequencer(name), "{name} has a sequencer");
    Database::new(&server(), name)
}

/// A database with a sequencer.
fn placed_database(name: &str) -> Database {
    assert!(has_sequencer(name), "{name} has no sequencer");
    Database::new(&server(), name)
}
