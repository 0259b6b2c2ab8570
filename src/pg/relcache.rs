//! News of changed relations, for what this process remembers of them.

use core::cell::Cell;

use pgrx::{pg_guard, pg_sys};

/// Is told the relation that has changed; `InvalidOid` if any may have.
pub type Callback = fn(pg_sys::Oid);

thread_local! {
    static CALLBACKS: Cell<&'static [Callback]> = const { Cell::new(&[]) };
}

/// Has PostgreSQL tell these of changes; once, when the library is loaded.
pub fn on_change(callbacks: &'static [Callback]) {
    CALLBACKS.set(callbacks);
    // SAFETY: the callback lives as long as the process.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    CALLBACKS.get().iter().for_each(|callback| callback(relation));
}
