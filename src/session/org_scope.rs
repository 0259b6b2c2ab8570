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
    /// Whether a role's or database's setting was looked up where the library was loaded late.
    static VERIFIED: Cell<bool> = const { Cell::new(false) };
}

/// Where the library is preloaded nobody could set anything before it: the setting is what it says.
/// A parallel worker has it from its leader, which looked it up to make the plan, and may set nothing.
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

/// Error unless the session may see this org.
pub fn require_org(org: &str) -> Result<()> {
    match bound_org() {
        Some(own) if own != org => Err(Error::ForeignOrg(org.to_owned())),
        _ => Ok(()),
    }
}

/// The org id, or an error if none could have it or the session may not see it.
pub fn permitted_org(org: Option<&str>) -> Result<&str> {
    let org = valid_org(org)?;
    require_org(org)?;
    Ok(org)
}

/// The org id, or an error if none could have it.
pub fn valid_org(org: Option<&str>) -> Result<&str> {
    let org = org.ok_or(Error::NullArgument("org"))?;
    match org.chars().take(MAX_ORG_CHARS + 1).count() {
        0 => Err(Error::EmptyOrg),
        1..=MAX_ORG_CHARS => Ok(org),
        _ => Err(Error::LongOrg(org.chars().count())),
    }
}

/// Without preloading, PostgreSQL does not know before the first call that only superusers may set
/// `tailstream.org`: a client's own value for it would have displaced the one set for its role. So
/// that one is looked up in the catalog, once per session. An error on the way leaves it to the next call.
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
