//! Background workers: a launcher for the server, a sequencer and a mirror for each database in
//! `tailstream.databases`.

pub mod backoff;
mod launcher;
pub mod process;
pub mod status;
pub mod transaction;
pub mod transaction_callbacks;
pub mod utility_hook;

/// Registers the launcher. Called while the server starts.
pub fn register() {
    launcher::register();
}
