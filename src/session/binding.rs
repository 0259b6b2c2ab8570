//! The binding of a session to one org by the setting `tailstream.org`.

use std::cell::Cell;

use pgrx::{Spi, pg_sys};

use crate::error::{Error, Result};
use crate::settings;

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
/// that one is looked up in the catalog, once per session.
fn verify_late_load() {
    if VERIFIED.get() {
        return;
    }
    // SAFETY: plain reads of the process's own state.
    let (in_transaction, superuser) =
        unsafe { (pg_sys::IsTransactionState(), pg_sys::superuser_arg(pg_sys::GetSessionUserId())) };
    if !in_transaction {
        return;
    }
    VERIFIED.set(true);
    if superuser {
        return;
    }
    if let Some(org) = catalog_setting()
        && let Ok(value) = std::ffi::CString::new(org)
    {
        // SAFETY: two C strings that live through the call.
        unsafe {
            pg_sys::SetConfigOption(
                c"tailstream.org".as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// What ALTER ROLE or ALTER DATABASE set, the most specific first.
fn catalog_setting() -> Option<String> {
    Spi::get_one(
        "SELECT pg_catalog.substr(c.entry, 16)
         FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c(entry)
         WHERE c.entry OPERATOR(pg_catalog.~~) 'tailstream.org=%'
           AND s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT d.oid FROM pg_catalog.pg_database d
                                       WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())])
           AND s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT r.oid FROM pg_catalog.pg_roles r
                                       WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER)])
         ORDER BY s.setrole OPERATOR(pg_catalog.=) 0, s.setdatabase OPERATOR(pg_catalog.=) 0 LIMIT 1",
    )
    .ok()
    .flatten()
}
