//! The mirror: what the sequencer has placed goes to Redis Streams, exactly once.

mod ahead;
mod checkpoint;
mod commands;
mod events;
mod feed;
mod key;
mod link;
mod orgs;
mod part;
mod position;
mod replicator;
mod resync;
mod server;
mod state;
mod status;
mod verify;
mod window;

use std::time::Duration;

use pgrx::{pg_guard, pg_sys};

use crate::error::Error;
use crate::metrics::shared::{Role, State};
use crate::worker::process;
use crate::worker::report::Reporter;
use replicator::Replicator;

pub use status::{is_on, stream_key_of};

/// How often it looks without being woken.
const INTERVAL: Duration = Duration::from_secs(1);

/// The mirror's main function.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn tailstream_mirror_main(argument: pg_sys::Datum) {
    let slot = process::begin(argument);
    process::report_activity(c"mirroring to Redis");
    // The plans for chunks are made once, when a chunk may still be small.
    process::set(c"enable_seqscan", c"off");
    let mut reporter = Reporter::new(slot, Role::Mirror);
    let mut replicator = match Replicator::new(slot) {
        Ok(replicator) => replicator,
        Err(error) => {
            reporter.failed(&format!("cannot start a thread: {error}"));
            return;
        }
    };
    loop {
        let pause = match replicator.step() {
            Ok(turn) => {
                if turn.recovered {
                    reporter.recovered();
                }
                if turn.settled {
                    reporter.succeeded(turn.state);
                } else if slot.worker(Role::Mirror).state() != State::Failing {
                    slot.worker(Role::Mirror).set_state(turn.state);
                }
                turn.pause.unwrap_or(INTERVAL)
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
