//! Stops the workers of a database for commands that need it without other sessions.
//!
//! DROP DATABASE, ALTER DATABASE … RENAME or SET TABLESPACE and CREATE DATABASE … TEMPLATE fail while a session is connected,
//! and the workers always are. They are stopped before such a command, and started again after it if the database still
//! exists. The observer also wakes the workers after COMMIT PREPARED, which calls no transaction callback in this session.

use core::ffi::{CStr, c_char};
use std::cell::RefCell;
use std::time::{Duration, Instant};

use pgrx::{is_a, pg_guard, pg_sys};

use super::transaction_callbacks;
use crate::pg::utility_hook::Observer;
use crate::shmem::{self, DatabaseState, Role};

/// Workers end at once, or after the statement that they are running.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// The databases whose workers this transaction has stopped.
    static PAUSED: RefCell<Vec<&'static DatabaseState>> = const { RefCell::new(Vec::new()) };
}

/// Stops and restarts workers around utility statements.
pub const OBSERVER: Observer = Observer {
    before: |command| {
        // SAFETY: the statement as it came from the parser.
        unsafe {
            if concerns_databases(command) {
                stop_workers_for(command);
            }
            commits_prepared(command)
        }
    },
    after: || {
        transaction_callbacks::wake_sequencer();
        transaction_callbacks::wake_mirror();
    },
};

unsafe fn concerns_databases(command: *mut pg_sys::Node) -> bool {
    use pg_sys::NodeTag::{T_AlterDatabaseStmt, T_CreatedbStmt, T_DropdbStmt, T_RenameStmt};
    // SAFETY: every node begins with its tag.
    let tag = unsafe { (*command).type_ };
    [T_DropdbStmt, T_RenameStmt, T_AlterDatabaseStmt, T_CreatedbStmt].contains(&tag)
}

#[pg_guard]
unsafe extern "C-unwind" fn stop_workers_for(command: *mut pg_sys::Node) {
    // SAFETY: a statement from the parser.
    if let Some(name) = unsafe { exclusive_database(command) } {
        pause(name);
    }
}

/// The name of the database that the command needs without other sessions.
unsafe fn exclusive_database(command: *mut pg_sys::Node) -> Option<*const c_char> {
    // SAFETY: the tag of a node says its type.
    unsafe {
        if is_a(command, pg_sys::NodeTag::T_DropdbStmt) {
            return Some((*command.cast::<pg_sys::DropdbStmt>()).dbname);
        }
        if is_a(command, pg_sys::NodeTag::T_RenameStmt) {
            let rename = command.cast::<pg_sys::RenameStmt>();
            return ((*rename).renameType == pg_sys::ObjectType::OBJECT_DATABASE)
                .then_some((*rename).subname);
        }
        if is_a(command, pg_sys::NodeTag::T_AlterDatabaseStmt) {
            let alter = command.cast::<pg_sys::AlterDatabaseStmt>();
            return option((*alter).options, "tablespace").map(|_| (*alter).dbname.cast_const());
        }
        if is_a(command, pg_sys::NodeTag::T_CreatedbStmt) {
            return option((*command.cast::<pg_sys::CreatedbStmt>()).options, "template");
        }
        None
    }
}

/// The value of an option of the command, if it is given.
unsafe fn option(options: *mut pg_sys::List, name: &str) -> Option<*const c_char> {
    // SAFETY: a list of options from the parser.
    unsafe {
        let options = pgrx::PgList::<pg_sys::DefElem>::from_pg(options);
        let is_named =
            |option: &*mut pg_sys::DefElem| CStr::from_ptr((**option).defname).to_bytes() == name.as_bytes();
        let found = options.iter_ptr().find(is_named)?;
        (!(*found).arg.is_null()).then(|| pg_sys::defGetString(found).cast_const())
    }
}

unsafe fn commits_prepared(command: *mut pg_sys::Node) -> bool {
    // SAFETY: as above.
    unsafe {
        is_a(command, pg_sys::NodeTag::T_TransactionStmt)
            && (*command.cast::<pg_sys::TransactionStmt>()).kind
                == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
    }
}

/// Stops the workers of a database until the transaction ends, if the user owns the database.
fn pause(name: *const c_char) {
    // SAFETY: a name from the parser; catalog look-ups inside a transaction.
    let database = unsafe { pg_sys::get_database_oid(name, true) };
    if database == pg_sys::InvalidOid || !is_owner(database) {
        return;
    }
    let Some(shared) = shmem::find(database) else { return };
    shared.set_paused(true);
    PAUSED.with_borrow_mut(|paused| paused.push(shared));
    let began = Instant::now();
    while Role::ALL.iter().any(|role| stop(shared, *role)) && began.elapsed() < STOP_TIMEOUT {
        let wake_up = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: the process's own latch. If the command is cancelled, the transaction's end lets the workers start again.
        unsafe {
            pg_sys::WaitLatch(pg_sys::MyLatch, wake_up as i32, 5, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
            pg_sys::check_for_interrupts!();
        }
    }
}

/// Signals the worker to end. Returns whether it still runs.
fn stop(shared: &DatabaseState, role: Role) -> bool {
    let pid = shared.worker(role).pid();
    if pid != 0 {
        // SAFETY: signals a process of this server.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    pid != 0
}

/// Transaction callback, also at the end of a session: the workers may start again.
pub fn transaction_ended() {
    let paused = PAUSED.take();
    if paused.is_empty() {
        return;
    }
    paused.iter().for_each(|shared| shared.set_paused(false));
    if let Some(launcher) = shmem::launcher() {
        launcher.wake();
    }
}

fn is_owner(database: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups inside a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, pg_sys::GetUserId());
    }
}
