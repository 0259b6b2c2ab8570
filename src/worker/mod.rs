//! Background workers: a launcher for the server, a sequencer and a mirror for each database in
//! `tailstream.databases`.

pub mod backoff;
pub mod commit;
mod database;
mod launcher;
pub mod process;
pub mod report;
pub mod transaction;

/// Registers the launcher and the hooks that workers need; while the server starts.
pub fn register() {
    launcher::register();
    database::install();
}
