//! PostgreSQL's ProcessUtility hook, which all modules share.

use core::ffi::c_char;

use pgrx::pg_sys;

/// Runs code before and after utility statements.
pub struct Observer {
    /// Called before each utility statement with its parse tree. An error refuses the statement. Returns whether `after` is
    /// called once the statement has succeeded; its parse tree may be gone then.
    ///
    /// Errors unwind through this function, so it must not own anything that needs to be dropped. Work that may fail belongs
    /// in a function of its own with `#[pg_guard]`.
    pub before: unsafe fn(*mut pg_sys::Node) -> bool,
    pub after: fn(),
}

static mut OBSERVERS: &[Observer] = &[];
static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

unsafe extern "C-unwind" {
    /// PostgreSQL's function without pgrx's guard, which would strip errors of their context and of user-defined SQLSTATEs.
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

/// Installs the hook. Called once, when the library is loaded. At most 32 observers.
pub fn install(observers: &'static [Observer]) {
    // SAFETY: plain variables of a single-threaded process.
    unsafe {
        OBSERVERS = observers;
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// An error unwinds through this frame, so it must not own anything that needs to be dropped.
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
    // SAFETY: passes PostgreSQL's arguments on unchanged.
    unsafe {
        let observers = OBSERVERS;
        let mut to_call = 0_u32;
        for (number, observer) in observers.iter().enumerate() {
            to_call |= u32::from((observer.before)((*statement).utilityStmt)) << number;
        }
        let next = PREVIOUS.unwrap_or(standard_ProcessUtility);
        next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
        for (number, observer) in observers.iter().enumerate() {
            if to_call >> number & 1 == 1 {
                (observer.after)();
            }
        }
    }
}
