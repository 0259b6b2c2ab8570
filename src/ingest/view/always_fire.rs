//! Makes the triggers of view `log_events` fire under every `session_replication_role`.
//!
//! In replica mode PostgreSQL skips triggers that are not ENABLE ALWAYS, and a view's triggers cannot be. An INSERT into the
//! view would succeed and store nothing. An ExecutorStart hook therefore enables them in the executor's copy of the trigger
//! descriptions. No hook sees the copy that COPY makes, so COPY into the view is refused in replica mode.

use core::ffi::{CStr, c_char, c_int};

use pgrx::{PgList, is_a, pg_guard, pg_sys};

use crate::error::Error;
use crate::pg::catalog;
use crate::pg::utility_hook::Observer;

const VIEW: &CStr = c"log_events";
/// Prefix of the names of our triggers.
const OURS: &[u8] = b"log_events_";

static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;

/// Refuses COPY into the view in replica mode.
pub const OBSERVER: Observer = Observer {
    before: |command| {
        // SAFETY: the statement as it came from the parser.
        unsafe {
            if pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as c_int
                && is_a(command, pg_sys::NodeTag::T_CopyStmt)
            {
                refuse_copy(command.cast());
            }
        }
        false
    },
    after: || {},
};

unsafe extern "C-unwind" {
    /// PostgreSQL's function without pgrx's guard: errors pass through the hook unchanged.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
}

/// Installs the hook. Called once, when the library is loaded.
pub fn install() {
    // SAFETY: PostgreSQL's hook is a plain variable of a single-threaded process.
    unsafe {
        PREVIOUS_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(started);
    }
}

/// Runs for every query. An error unwinds through this frame, so it must not own anything that needs to be dropped.
unsafe extern "C-unwind" fn started(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: passes PostgreSQL's arguments on unchanged.
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
