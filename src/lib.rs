//! Multi-tenant event streams inside TimescaleDB: batch ingest, tiered retention and replay.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unimplemented)]
#![cfg_attr(any(test, feature = "pg_test"), allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod batch_reader;
mod error;
mod failpoint;
mod ingest;
mod locks;
mod metrics;
mod mirror;
mod pg;
mod replay;
mod schema;
mod sequencer;
mod session;
mod settings;
mod shmem;
mod storage;
mod tier;
mod worker;

use tailstream_event as event;

::pgrx::pg_module_magic!(name, version);

/// Called by PostgreSQL once in each process that loads the library.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::init();
    session::org_scope::trust_if_preloaded();
    session::view_redirect::install();
    pg::relcache::on_change(&[
        tier::cache::relation_changed,
        storage::write_chunk_cache::relation_changed,
        storage::read_chunk_cache::relation_changed,
    ]);
    worker::transaction_callbacks::register();
    ingest::view::pending::register();
    ingest::view::always_fire::install();
    // SAFETY: reads two variables.
    let has_workers = unsafe {
        pgrx::pg_sys::process_shared_preload_libraries_in_progress && !pgrx::pg_sys::IsBinaryUpgrade
    };
    pg::utility_hook::install(if has_workers {
        &[worker::utility_hook::OBSERVER, ingest::view::always_fire::OBSERVER]
    } else {
        &[ingest::view::always_fire::OBSERVER]
    });
    if has_workers {
        shmem::reserve();
        worker::register();
    }
}

/// The library's version, for `ts_version()` and its comparison with the installed extension.
#[pgrx::pg_extern(sql = false)]
fn ts_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[cfg(any(test, feature = "pg_test"))]
mod pg_tests;

/// `cargo pgrx test` looks for this module at the root of the crate.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![
            "shared_preload_libraries = 'timescaledb,tailstream'",
            "timescaledb.telemetry_level = off",
            "max_locks_per_transaction = 256",
        ]
    }
}
