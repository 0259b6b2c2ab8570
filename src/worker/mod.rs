//! Background workers: a launcher for the server, a sequencer and a mirror for each database in
//! `tailstream.databases`.

pub mod backoff;
mod launcher;
pub mod process;
pub mod status;
pub mod transaction;
pub mod transaction_callbacks;
mod utility_hook;

/// Registers the launcher and the hooks that workers need; while the server starts.
pub fn register() {
    launcher::register();
    utility_hook::install();
}
