//! Relation cache invalidations, for the caches of this process.

use core::cell::Cell;

use pgrx::{pg_guard, pg_sys};

/// Receives the relation that has changed; `InvalidOid` if any relation may have changed.
pub type Callback = fn(pg_sys::Oid);

thread_local! {
    static CALLBACKS: Cell<&'static [Callback]> = const { Cell::new(&[]) };
}

/// Registers the callbacks; called once, when the library is loaded.
pub fn on_change(callbacks: &'static [Callback]) {
    CALLBACKS.set(callbacks);
    // SAFETY: the callback lives as long as the process.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    CALLBACKS.get().iter().for_each(|callback| callback(relation));
}
