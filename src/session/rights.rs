//! Whether the current role may read events.

use pgrx::{IntoDatum, pg_sys};

use crate::pg::catalog;

/// Whether the role may execute `tailstream.is_retained()`, as all readers may. PostgreSQL checks this itself when the view is
/// read; this check gives a better error message.
pub fn may_read() -> bool {
    let Ok(schema) = catalog::schema() else { return true };
    let types = [pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID];
    // SAFETY: a look-up in the catalog of functions by name, argument types and schema.
    unsafe {
        let types = pg_sys::buildoidvector(types.as_ptr(), types.len() as i32);
        let function = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            pg_sys::Anum_pg_proc_oid as i16,
            c"is_retained".into_datum().unwrap_or(pg_sys::Datum::null()),
            pg_sys::Datum::from(types),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::null(),
        );
        function == pg_sys::InvalidOid || is_permitted(function)
    }
}

unsafe fn is_permitted(function: pg_sys::Oid) -> bool {
    // SAFETY: a function that exists.
    unsafe {
        let role = pg_sys::GetUserId();
        let mode = pg_sys::ACL_EXECUTE.into();
        #[cfg(feature = "pg15")]
        let found = pg_sys::pg_proc_aclcheck(function, role, mode);
        #[cfg(not(feature = "pg15"))]
        let found = pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, mode);
        found == pg_sys::AclResult::ACLCHECK_OK
    }
}
