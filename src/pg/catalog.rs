//! Catalog look-ups that need no privileges and run no query.

use core::ffi::CStr;

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::table_scan;

/// The schema of our tables.
pub fn schema() -> Result<pg_sys::Oid> {
    // SAFETY: a catalog look-up by name.
    let schema = unsafe { pg_sys::get_namespace_oid(c"tailstream".as_ptr(), true) };
    if schema == pg_sys::InvalidOid { Err(Error::StorageMissing) } else { Ok(schema) }
}

/// A relation of our schema.
pub fn relation(schema: pg_sys::Oid, name: &CStr) -> Result<pg_sys::Oid> {
    // SAFETY: a catalog look-up by name.
    let found = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    if found == pg_sys::InvalidOid { Err(Error::StorageMissing) } else { Ok(found) }
}

/// The value that ALTER ROLE or ALTER DATABASE set for this session's user; the most specific one applies. Needs no snapshot, so
/// it works while BEGIN is analysed.
pub fn role_setting(name: &str) -> Option<String> {
    // SAFETY: reads the process's own state, and a catalog by name.
    let (database, role, settings) = unsafe {
        let catalog = pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE);
        let settings = pg_sys::get_relname_relid(c"pg_db_role_setting".as_ptr(), catalog);
        (pg_sys::MyDatabaseId, pg_sys::GetSessionUserId(), settings)
    };
    let mut found: Option<((bool, bool), String)> = None;
    table_scan::scan(settings, |row| {
        let (Some(of_database), Some(of_role), Some(entries)) =
            (row.value::<pg_sys::Oid>(1), row.value::<pg_sys::Oid>(2), row.value::<Vec<Option<String>>>(3))
        else {
            return;
        };
        let rank = (of_role == role, of_database == database);
        let ours = (rank.0 || of_role == pg_sys::InvalidOid) && (rank.1 || of_database == pg_sys::InvalidOid);
        let value = entries.iter().flatten().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        if let (true, Some(value)) = (ours, value)
            && found.as_ref().is_none_or(|(best, _)| rank > *best)
        {
            found = Some((rank, value.to_owned()));
        }
    });
    found.map(|(_, value)| value)
}

/// All databases of the server that one can connect to. Needs no database itself.
pub fn databases() -> Vec<(pg_sys::Oid, String)> {
    let mut found = Vec::new();
    table_scan::scan(pg_sys::DatabaseRelationId, |row| {
        let name = row.value::<&CStr>(2).filter(|_| row.value::<bool>(7) == Some(true));
        if let (Some(oid), Some(name)) = (row.value::<pg_sys::Oid>(1), name) {
            found.push((oid, name.to_string_lossy().into_owned()));
        }
    });
    found
}
