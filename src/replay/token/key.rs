//! The database's key, read once in a session.

use std::cell::RefCell;

use pgrx::pg_sys;

use super::Signer;
use crate::error::Result;
use crate::pg::catalog;
use crate::tier::lookup;

thread_local! {
    /// The table it was read from, which another one may have replaced since.
    static KEY: RefCell<Option<(pg_sys::Oid, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Makes and reads tokens of this org.
pub fn signer(org: &str) -> Result<Signer> {
    let table = catalog::relation(catalog::schema()?, c"token_key")?;
    let known = KEY.with_borrow(|key| key.as_ref().is_some_and(|(of, _)| *of == table));
    if !known {
        let secret = lookup::token_key(table)?;
        KEY.set(Some((table, secret)));
    }
    Ok(KEY.with_borrow(|key| Signer::new(key.as_ref().map_or(&[], |(_, secret)| secret), org)))
}
