//! The launcher: starts the workers of each database, and restarts them when they end.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::{pg_guard, pg_sys};

use super::process;
use super::transaction::{self, Isolation};
use crate::pg::catalog;
use crate::settings;
use crate::shmem::{self, Role};

/// How often it checks the databases: creating or dropping one does not wake it.
const INTERVAL: Duration = Duration::from_secs(2);
/// The pause before an ended worker is started again.
const PAUSE: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether the log already says that no worker slot is free.
    static FULL: Cell<bool> = const { Cell::new(false) };
}

/// Registers it with PostgreSQL, which starts it, on a standby only after promotion.
pub fn register() {
    BackgroundWorkerBuilder::new("tailstream launcher")
        .set_type("tailstream launcher")
        .set_library("tailstream")
        .set_function("tailstream_launcher_main")
        .enable_spi_access()
        .set_restart_time(Some(PAUSE))
        .load();
}

/// The launcher's main function.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn tailstream_launcher_main(_argument: pg_sys::Datum) {
    process::attach_signals();
    // SAFETY: connects without a database, which is enough for the shared catalogs.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(pg_sys::InvalidOid, pg_sys::InvalidOid, 0) };
    if let Some(launcher) = shmem::launcher() {
        // The state of a worker that ended with an error may still be set.
        launcher.leave();
        launcher.enter();
    }
    let mut workers = HashMap::new();
    loop {
        if let Err(error) = transaction::run(Isolation::ReadCommitted, || {
            let all = catalog::databases();
            shmem::release_unless(|database| all.iter().any(|(oid, _)| *oid == database));
            let names = settings::databases();
            let wanted = all.into_iter().filter(|(_, name)| names.contains(name));
            Ok(wanted.collect::<Vec<_>>())
        })
        .map(|wanted| keep_running(&mut workers, &wanted))
        {
            pgrx::log!("tailstream launcher: {error}");
        }
        process::wait(INTERVAL);
    }
}

struct Started {
    handle: DynamicBackgroundWorker,
    at: Instant,
}

fn keep_running(workers: &mut HashMap<(u32, Role), Started>, wanted: &[(pg_sys::Oid, String)]) {
    let gone: Vec<_> = workers
        .keys()
        .copied()
        .filter(|(database, _)| !wanted.iter().any(|(oid, _)| oid.to_u32() == *database))
        .collect();
    for key in gone {
        if let Some(started) = workers.remove(&key) {
            started.handle.terminate();
        }
    }
    for (database, name) in wanted {
        let Some(shared) = shmem::claim(*database) else { continue };
        for role in Role::ALL {
            let key = (database.to_u32(), role);
            let runs = workers.get(&key).is_some_and(|started| {
                !matches!(started.handle.pid(), Err(BackgroundWorkerStatus::Stopped))
                    || started.at.elapsed() < PAUSE
            });
            // It may have been started by an earlier launcher, or is still ending.
            let runs = runs || shared.worker(role).pid() != 0;
            if !runs
                && !shared.is_paused()
                && let Some(handle) = start(*database, name, role)
            {
                workers.insert(key, Started { handle, at: Instant::now() });
            }
        }
    }
}

fn start(database: pg_sys::Oid, name: &str, role: Role) -> Option<DynamicBackgroundWorker> {
    let function = match role {
        Role::Sequencer => "tailstream_sequencer_main",
        Role::Mirror => "tailstream_mirror_main",
    };
    let kind = format!("tailstream {}", role.name());
    // SAFETY: reads one variable.
    let own_pid = unsafe { pg_sys::MyProcPid };
    let started = BackgroundWorkerBuilder::new(&format!("{kind} of database {}", database.to_u32()))
        .set_type(&kind)
        .set_library("tailstream")
        .set_function(function)
        .set_extra(name)
        .set_argument(Some(process::argument(database, role)))
        .enable_spi_access()
        .set_notify_pid(own_pid)
        .load_dynamic();
    if started.is_err() && !FULL.replace(true) {
        pgrx::warning!("tailstream: no {} could be started; raise max_worker_processes", role.name());
    } else if started.is_ok() {
        FULL.set(false);
    }
    started.ok()
}
