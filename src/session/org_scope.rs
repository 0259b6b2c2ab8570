//! The binding of a session to one org by the setting `tailstream.org`.

use std::cell::Cell;
use std::ffi::CString;

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::catalog;
use crate::settings;

const SETTING: &str = "tailstream.org";
const MAX_ORG_CHARS: usize = 255;

thread_local! {
    /// Whether the settings of role and database were looked up, if the library was not preloaded.
    static VERIFIED: Cell<bool> = const { Cell::new(false) };
}

/// If the library is preloaded, the setting cannot have been changed before it was loaded, so its value is right. A parallel
/// worker has the value of its leader and cannot change it.
pub fn trust_if_preloaded() {
    // SAFETY: reads two variables.
    VERIFIED.set(unsafe {
        pg_sys::process_shared_preload_libraries_in_progress || pg_sys::ParallelWorkerNumber >= 0
    });
}

/// The org this session is bound to, if any.
pub fn bound_org() -> Option<String> {
    verify_late_load();
    settings::org().map(|org| org.to_string_lossy().into_owned())
}

/// Error unless the session may see all orgs.
pub fn require_unbound() -> Result<()> {
    match bound_org() {
        None => Ok(()),
        Some(org) => Err(Error::Bound(org)),
    }
}

/// Error unless the session has access to this org.
pub fn require_org(org: &str) -> Result<()> {
    match bound_org() {
        Some(own) if own != org => Err(Error::ForeignOrg(org.to_owned())),
        _ => Ok(()),
    }
}

/// Returns the org id. Error if it is not a valid id, or if the session has no access to it.
pub fn permitted_org(org: Option<&str>) -> Result<&str> {
    let org = valid_org(org)?;
    require_org(org)?;
    Ok(org)
}

/// Returns the org id. Error if it is not a valid id.
pub fn valid_org(org: Option<&str>) -> Result<&str> {
    let org = org.ok_or(Error::NullArgument("org"))?;
    match org.chars().take(MAX_ORG_CHARS + 1).count() {
        0 => Err(Error::EmptyOrg),
        1..=MAX_ORG_CHARS => Ok(org),
        _ => Err(Error::LongOrg(org.chars().count())),
    }
}

/// Without preloading, PostgreSQL does not know before the first call that only superusers may set `tailstream.org`: a value
/// that the client set replaces the one of its role. The role's value is therefore read from the catalog, once per session. After
/// an error the next call tries again.
fn verify_late_load() {
    // SAFETY: reads the process's own state. Outside of a transaction there is no catalog to read, and no query.
    if VERIFIED.get() || !unsafe { pg_sys::IsTransactionState() } {
        return;
    }
    // SAFETY: as above.
    let superuser = unsafe { pg_sys::superuser_arg(pg_sys::GetSessionUserId()) };
    if !superuser && let Some(org) = catalog::role_setting(SETTING) {
        bind(&org);
    }
    VERIFIED.set(true);
}

fn bind(org: &str) {
    let (Ok(name), Ok(org)) = (CString::new(SETTING), CString::new(org)) else { return };
    // SAFETY: two C strings that live through the call.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            org.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}
