//! Makes room for commands that want a database to themselves.
//!
//! DROP DATABASE, ALTER DATABASE … RENAME or SET TABLESPACE and CREATE DATABASE … TEMPLATE fail while anybody is connected,
//! and our workers always are. So they leave when such a command comes, and come back if the database is
//! still there after it. COMMIT PREPARED passes here too: it makes rows visible without telling anybody.

use core::ffi::{CStr, c_char};
use std::cell::RefCell;
use std::time::{Duration, Instant};

use pgrx::{is_a, pg_guard, pg_sys};

use super::transaction_callbacks;
use crate::shmem::{self, DatabaseState, Role};

/// Workers leave at once, or after the statement they are in.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    /// The databases whose workers this transaction keeps away.
    static PAUSED: RefCell<Vec<&'static DatabaseState>> = const { RefCell::new(Vec::new()) };
}

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Installs the hook; while the server starts.
pub fn install() {
    // SAFETY: PostgreSQL's hooks are plain variables of a single-threaded process.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

unsafe extern "C-unwind" {
    /// PostgreSQL's own, without the guard that pgrx puts around it: an error would lose its context and
    /// SQLSTATEs of users' own on the way.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Every utility statement of the server passes here, and its errors pass as they are: over this frame, which must
/// hold nothing that would have to be dropped. What may go wrong on our side has a guard of its own.
#[allow(clippy::too_many_arguments, reason = "PostgreSQL's own list")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are PostgreSQL's own and passed on as they came.
    unsafe {
        let command = (*statement).utilityStmt;
        if concerns_databases(command) {
            send_workers_away(command);
        }
        // The statement may be gone when it has run.
        let commits_prepared = commits_prepared(command);
        let next = PREVIOUS.unwrap_or(standard_ProcessUtility);
        next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
        if commits_prepared {
            transaction_callbacks::wake_sequencer();
            transaction_callbacks::wake_mirror();
        }
    }
}

unsafe fn concerns_databases(command: *mut pg_sys::Node) -> bool {
    use pg_sys::NodeTag::{T_AlterDatabaseStmt, T_CreatedbStmt, T_DropdbStmt, T_RenameStmt};
    // SAFETY: every node begins with what it is.
    let tag = unsafe { (*command).type_ };
    [T_DropdbStmt, T_RenameStmt, T_AlterDatabaseStmt, T_CreatedbStmt].contains(&tag)
}

#[pg_guard]
unsafe extern "C-unwind" fn send_workers_away(command: *mut pg_sys::Node) {
    // SAFETY: the command as it came from the parser.
    if let Some(name) = unsafe { wanted_alone(command) } {
        pause(name);
    }
}

/// The name of the database that the command wants to be alone with.
unsafe fn wanted_alone(command: *mut pg_sys::Node) -> Option<*const c_char> {
    // SAFETY: the node says what it is.
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

/// The value of an option of the command, if it has that.
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

/// Sends the workers of a database away until the transaction ends, if there are any and the user owns the database.
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
    while Role::ALL.iter().any(|role| dismiss(shared, *role)) && began.elapsed() < PATIENCE {
        let wake_up = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: the process's own latch; a cancelled command ends here, and the pause with its transaction.
        unsafe {
            pg_sys::WaitLatch(pg_sys::MyLatch, wake_up as i32, 5, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
            pg_sys::check_for_interrupts!();
        }
    }
}

/// Whether the worker still runs.
fn dismiss(shared: &DatabaseState, role: Role) -> bool {
    let pid = shared.worker(role).pid();
    if pid != 0 {
        // SAFETY: a process of this server; SIGTERM is how it is told to end.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    pid != 0
}

/// The transaction has ended, be it that the session has: workers may come back.
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
