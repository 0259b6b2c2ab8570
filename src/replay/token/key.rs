//! The database's token key, read once per session.

use std::cell::RefCell;

use pgrx::pg_sys;

use super::Signer;
use crate::error::Result;
use crate::pg::catalog;
use crate::tier::lookup;

thread_local! {
    /// The table from which it was read, which may have been replaced since, and the key.
    static KEY: RefCell<Option<(pg_sys::Oid, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Returns a signer for the tokens of this org.
pub fn signer(org: &str) -> Result<Signer> {
    let table = catalog::relation(catalog::schema()?, c"token_key")?;
    let known = KEY.with_borrow(|key| key.as_ref().is_some_and(|(of, _)| *of == table));
    if !known {
        let secret = lookup::token_key(table)?;
        KEY.set(Some((table, secret)));
    }
    Ok(KEY.with_borrow(|key| Signer::new(key.as_ref().map_or(&[], |(_, secret)| secret), org)))
}
