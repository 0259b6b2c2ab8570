//! Our triggers on view log_events fire always.
//!
//! With `session_replication_role = replica` PostgreSQL passes over triggers that are not ENABLE ALWAYS, which a view's
//! cannot be: such a session's INSERT would succeed and store nothing. So they are switched in the executor's own copy of
//! the view's triggers. COPY has a copy that no hook sees, so there it is refused.

use core::ffi::{CStr, c_char, c_int};

use pgrx::{PgList, is_a, pg_guard, pg_sys};

use crate::error::Error;
use crate::pg::catalog;

const VIEW: &CStr = c"log_events";
/// How the names of our triggers on it begin.
const OURS: &[u8] = b"log_events_";

static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREVIOUS_UTILITY: pg_sys::ProcessUtility_hook_type = None;

unsafe extern "C-unwind" {
    // PostgreSQL's own, without the guard that pgrx puts around them: errors pass the hooks as they are.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
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

/// Installs the hooks; once, when the library is loaded.
pub fn install() {
    // SAFETY: PostgreSQL's hooks are plain variables of a single-threaded process.
    unsafe {
        PREVIOUS_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(started);
        PREVIOUS_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
    }
}

/// Every query passes here, and its errors pass over this frame, which holds nothing that would have to be dropped.
unsafe extern "C-unwind" fn started(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the arguments are PostgreSQL's own and passed on as they came.
    unsafe {
        PREVIOUS_START.unwrap_or(standard_ExecutorStart)(query, flags);
        let state = (*query).estate;
        if !state.is_null() && !(*state).es_opened_result_relations.is_null() {
            fire_always((*state).es_opened_result_relations);
        }
    }
}

/// # Safety
/// `relations` must be the relations that a query in progress writes to.
#[pg_guard]
unsafe extern "C-unwind" fn fire_always(relations: *mut pg_sys::List) {
    // SAFETY: the caller's promise; the executor has made its copy of the triggers for this query.
    unsafe {
        for target in PgList::<pg_sys::ResultRelInfo>::from_pg(relations).iter_ptr() {
            let form = &*(*(*target).ri_RelationDesc).rd_rel;
            let Some(triggers) = (*target).ri_TrigDesc.as_mut() else { continue };
            if form.relkind as u8 == pg_sys::RELKIND_VIEW
                && CStr::from_ptr(form.relname.data.as_ptr()) == VIEW
                && catalog::schema().is_ok_and(|schema| schema == form.relnamespace)
            {
                let count = triggers.numtriggers.unsigned_abs() as usize;
                for trigger in std::slice::from_raw_parts_mut(triggers.triggers, count) {
                    if CStr::from_ptr(trigger.tgname).to_bytes().starts_with(OURS) {
                        trigger.tgenabled = pg_sys::TRIGGER_FIRES_ALWAYS as c_char;
                    }
                }
            }
        }
    }
}

/// As `started`, for utility statements.
#[allow(clippy::too_many_arguments, reason = "PostgreSQL's own list")]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: as above.
    unsafe {
        let command = (*statement).utilityStmt;
        if pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as c_int
            && is_a(command, pg_sys::NodeTag::T_CopyStmt)
        {
            refuse_copy(command.cast());
        }
        let next = PREVIOUS_UTILITY.unwrap_or(standard_ProcessUtility);
        next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
    }
}

/// # Safety
/// `copy` must come from the parser.
#[pg_guard]
unsafe extern "C-unwind" fn refuse_copy(copy: *const pg_sys::CopyStmt) {
    // SAFETY: the caller's promise; catalog look-ups inside a transaction.
    unsafe {
        if !(*copy).is_from || (*copy).relation.is_null() {
            return;
        }
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        let none = std::ptr::null_mut();
        let target =
            pg_sys::RangeVarGetRelidExtended((*copy).relation, pg_sys::NoLock as c_int, flags, None, none);
        let view = catalog::schema().and_then(|schema| catalog::relation(schema, VIEW));
        if target != pg_sys::InvalidOid && view.is_ok_and(|view| view == target) {
            Error::CopyWithoutTriggers.raise();
        }
    }
}
