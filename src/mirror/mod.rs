//! The mirror: a background worker that writes the events of all batches with a position to Redis Streams, each event
//! exactly once.
//!
//! Its modules import each other in one direction, in this order (`make lint` checks it, see dev/devkit/src/layers.rs):
//!
//! - [`commands`], [`replies`]: commands in the protocol of Redis, and what its replies contain
//! - [`position`], [`checkpoint`], [`key`]: positions in commit order, the checkpoint in Redis, and the keys in Redis
//! - [`entry`], [`server`], [`connection`]: entries of a stream, the limits of the Redis server, and the thread that
//!   talks to it
//! - [`stream_contents`], [`orgs`]: which positions an org's stream should contain, and how each org is mirrored
//! - [`events`], [`read_ahead`]: the events of batches, read as entries
//! - [`redis_transaction`], [`reader`]: one MULTI/EXEC, and how it is filled with the next batches
//! - [`state`], [`resync`]: the mirror's tables, and the streams that are to be written again
//! - [`status`], [`verify`]: `ts_mirror_status()` and `ts_mirror_verify()`
//! - [`replicator`]: the loop that connects, reads and sends

mod checkpoint;
mod commands;
mod connection;
mod entry;
mod events;
mod key;
mod orgs;
mod position;
mod read_ahead;
mod reader;
mod redis_transaction;
mod replicator;
mod replies;
mod resync;
mod server;
mod state;
mod status;
mod stream_contents;
mod verify;

use std::time::Duration;

use pgrx::{pg_guard, pg_sys};

use crate::error::Error;
use crate::shmem::{Role, State};
use crate::worker::process;
use crate::worker::status::Reporter;
use replicator::Replicator;

pub use status::{is_on, stream_key_of};

/// The mirror looks for work at this interval if nothing wakes it.
const INTERVAL: Duration = Duration::from_secs(1);

/// The mirror's main function.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn tailstream_mirror_main(argument: pg_sys::Datum) {
    let shared = process::begin(argument);
    process::report_activity(c"mirroring to Redis");
    // A chunk may be small when its plan is made, and the plan is kept. An index scan remains right when the chunk
    // grows.
    process::set(c"enable_seqscan", c"off");
    let mut reporter = Reporter::new(shared, Role::Mirror);
    let mut replicator = match Replicator::new(shared) {
        Ok(replicator) => replicator,
        Err(error) => {
            reporter.failed(&format!("cannot start a thread: {error}"));
            return;
        }
    };
    loop {
        let pause = match replicator.step() {
            Ok(step) => {
                if step.recovered {
                    reporter.recovered();
                }
                if step.succeeded {
                    reporter.succeeded(step.state);
                } else if shared.worker(Role::Mirror).state() != State::Failing {
                    shared.worker(Role::Mirror).set_state(step.state);
                }
                step.pause.unwrap_or(INTERVAL)
            }
            Err(Error::StorageMissing) => {
                replicator.forget();
                reporter.recovered();
                reporter.succeeded(State::Off);
                INTERVAL
            }
            Err(error) => {
                let pause = reporter.failed(&error.to_string());
                replicator.failed(pause);
                pause
            }
        };
        let reloaded = if pause.is_zero() { process::serve_interrupts() } else { process::wait(pause) };
        if reloaded {
            replicator.reloaded();
            reporter.recovered();
        }
    }
}
