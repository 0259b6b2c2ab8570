//! What the end-to-end tests share: a server per test binary, a fresh database per test, seeds and
//! time budgets, and checks of refusals.
//!
//! Settings, all by environment:
//! - `TAILSTREAM_SEED`: the seed of random tests; without it one is taken from the clock. A failing
//!   test prints the one it had.
//! - `TAILSTREAM_TEST_SECONDS`: how long each random test goes on, instead of its own few seconds.
//! - `TAILSTREAM_SOAK=1`: forty times as long.

pub mod bookkeeping;
pub mod cursor;
pub mod database;
pub mod document;
pub mod mirror;
pub mod positions;
pub mod proxy;
pub mod random;
pub mod refusal;
pub mod rewind;
pub mod server;
pub mod standby;
pub mod stream;

pub use database::{Database, Ingested};
pub use mirror::{Mirror, Sides};
pub use proxy::Proxy;
pub use random::{Random, budget};
pub use refusal::{refused, sqlstate};
pub use rewind::Snapshot;
pub use server::Server;
pub use standby::Standby;

use std::time::{Duration, Instant};

/// Polls until `holds` returns something; fails the test when it never does.
#[track_caller]
pub fn eventually<T>(what: &str, patience: Duration, mut holds: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(began.elapsed() < patience, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
