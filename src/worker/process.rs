//! What all worker processes have in common: start, wait, signals, end.

use core::ffi::{CStr, c_int};
use std::time::Duration;

use pgrx::bgworkers::BackgroundWorker;
use pgrx::{pg_guard, pg_sys};

use crate::shmem::{self, Role, State};

unsafe extern "C-unwind" {
    /// PostgreSQL's handler: the next interrupt check ends the process. A signal handler, so without pgrx's guard.
    fn die(signal: c_int);
    /// PostgreSQL's handler, as above.
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// Settings of the server, a role or a database are meant for clients, so a worker overrides them. Commits are synchronous,
/// because a position must not be lost once Redis has it.
const OWN_SETTINGS: &[(&CStr, &CStr)] = &[
    (c"statement_timeout", c"0"),
    (c"lock_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"search_path", c"pg_catalog"),
    (c"timezone", c"UTC"),
    (c"synchronous_commit", c"on"),
    // Statements that read a hypertable choose their plan cache mode themselves.
    (c"plan_cache_mode", c"auto"),
    (c"jit", c"off"),
];

/// The last field of the lock's tag, where PostgreSQL has a column number, which a database does not have.
const ONLY_ONE: u16 = 1;

/// How long a process that meets a running restore waits before it ends. The next process checks again.
const RESTORING: Duration = Duration::from_secs(1);

/// Installs the handlers for the signals that PostgreSQL sends to workers.
pub fn attach_signals() {
    // SAFETY: PostgreSQL's own handlers for its own signals, before anything else is done.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            pg_sys::pqsignal(libc::SIGTERM, Some(die));
            pg_sys::pqsignal(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        }
        #[cfg(feature = "pg18")]
        {
            pg_sys::pqsignal_be(libc::SIGTERM, Some(die));
            pg_sys::pqsignal_be(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        }
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Waits until woken or for `timeout`, then serves interrupts. Ends the process if it was asked to. Returns whether the
/// configuration was reloaded.
pub fn wait(timeout: Duration) -> bool {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = timeout.as_millis().clamp(1, 3_600_000) as core::ffi::c_long;
    // SAFETY: the process's own latch and flags, in the order PostgreSQL's own workers use them.
    unsafe {
        // Reports statistics for autovacuum. PostgreSQL limits how often that is done.
        pg_sys::pgstat_report_stat(false);
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    serve_interrupts()
}

/// In a session: waits up to 100 ms for its connection thread. Raises an error if the query is cancelled.
pub fn wait_for_answer() {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, 100, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        pg_sys::check_for_interrupts!();
    }
}

/// Serves pending interrupts without waiting.
pub fn serve_interrupts() -> bool {
    // SAFETY: flags that signal handlers set; the file is read outside of any transaction.
    unsafe {
        if (&raw const pg_sys::ProcDiePending).read_volatile() != 0 {
            // PostgreSQL restarts a static worker that exits with 1.
            pg_sys::proc_exit(i32::from(is_static()));
        }
        pg_sys::check_for_interrupts!();
        let reload = (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0;
        if reload {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
            if !is_static() && !is_listed() {
                // The launcher that started this process may no longer run, so it could not end it.
                pg_sys::proc_exit(0);
            }
        }
        reload
    }
}

/// Whether PostgreSQL started this process, not the launcher.
fn is_static() -> bool {
    // SAFETY: what the process was started with.
    unsafe { pg_sys::MyBgworkerEntry.as_ref() }
        .is_some_and(|entry| entry.bgw_restart_time != pg_sys::BGW_NEVER_RESTART)
}

/// Whether the worker's database is still in `tailstream.databases`.
fn is_listed() -> bool {
    let name = BackgroundWorker::get_extra();
    crate::settings::databases().iter().any(|listed| listed == name)
}

/// Shows in `pg_stat_activity` what the process is doing.
pub fn report_activity(text: &CStr) {
    // SAFETY: copies the text.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, text.as_ptr()) };
}

/// Changes a setting of this process.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: two C strings that live through the call.
    unsafe {
        let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
        pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), context, source);
    }
}

/// The argument of the worker's main function: a database and a role.
pub fn assignment(argument: pg_sys::Datum) -> (pg_sys::Oid, Role) {
    let number = argument.value() as u64;
    let role = if number >> 32 == Role::Mirror as u64 { Role::Mirror } else { Role::Sequencer };
    (pg_sys::Oid::from(number as u32), role)
}

pub fn argument(database: pg_sys::Oid, role: Role) -> pg_sys::Datum {
    pg_sys::Datum::from(u64::from(database.to_u32()) | (role as u64) << 32)
}

/// Connects the process to its database and registers it in shared memory until it ends. Ends the process if no entry in shared
/// memory is free.
pub fn begin(argument: pg_sys::Datum) -> &'static shmem::DatabaseState {
    let (database, role) = assignment(argument);
    attach_signals();
    // SAFETY: once, before anything that needs a database.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0) };
    let Some(shared) = shmem::own() else {
        pgrx::warning!("tailstream: more databases than one server has room for");
        end()
    };
    if !is_only_one(role) || !shared.worker(role).enter() {
        end()
    }
    // SAFETY: runs when the process ends, however that comes about short of a crash, which resets shared memory.
    unsafe { pg_sys::before_shmem_exit(Some(leave), argument) };
    if shared.is_paused() {
        // Started just before a command that needs the database without sessions.
        end()
    }
    for (name, value) in OWN_SETTINGS {
        set(name, value);
    }
    if is_restoring() {
        // TimescaleDB refuses the worker's statements, and a session keeps that setting from its start to its end.
        shared.worker(role).set_state(State::Off);
        wait(RESTORING);
        end();
    }
    shared
}

/// Acquires a lock that only one process can hold, until it ends: two sequencers would assign two positions to every batch.
fn is_only_one(role: Role) -> bool {
    // SAFETY: reads one variable; the tag lives through the call, and no SQL command makes that tag.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
            locktag_field3: pg_sys::MyDatabaseId.to_u32(),
            locktag_field4: ONLY_ONE + role as u16,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            // With the other lock method, a transaction that is rolled back would release the session's locks, too.
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        let result = pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, true, true);
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// Whether a dump is being restored into the database, or was when this process connected.
fn is_restoring() -> bool {
    // SAFETY: a setting of the process, NULL if there is none of that name.
    let value = unsafe { pg_sys::GetConfigOption(c"timescaledb.restoring".as_ptr(), true, false) };
    // SAFETY: a C string that lives until the setting changes.
    !value.is_null() && unsafe { CStr::from_ptr(value) } == c"on"
}

/// Ends the process normally.
fn end() -> ! {
    // SAFETY: does not return, whatever its declaration says in some versions.
    unsafe { pg_sys::proc_exit(0) };
    #[allow(unreachable_code, reason = "in some versions it is declared as if it returned")]
    std::process::abort()
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: c_int, argument: pg_sys::Datum) {
    let (_, role) = assignment(argument);
    if let Some(shared) = shmem::own() {
        shared.worker(role).leave();
    }
}

/// A random number, for jitter.
pub fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: as many bytes as there are.
    unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    u64::from_ne_bytes(bytes)
}
