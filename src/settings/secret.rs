//! A setting that contains credentials and does not reveal them.
//!
//! PostgreSQL shows the value of a setting in `pg_settings`, in SHOW and, when a reload changes it, in its log. The value that
//! PostgreSQL stores for `tailstream.redis_url` is therefore always empty. The check hook passes the real value to the assign
//! hook, and it is shown with a masked password.

use core::ffi::{CStr, c_char, c_void};
use std::cell::RefCell;
use std::ffi::CString;

use pgrx::{pg_guard, pg_sys};

thread_local! {
    static REDIS_URL: RefCell<Secret> = RefCell::default();
}

#[derive(Default)]
struct Secret {
    value: String,
    shown: CString,
}

/// The value.
pub fn redis_url() -> String {
    REDIS_URL.with_borrow(|secret| secret.value.clone())
}

/// Check hook: moves the value out of PostgreSQL's string. Accepts any value, because an error message would print it.
#[pg_guard]
pub unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a string of its own that the hook may change, and frees `extra` as it made it.
    unsafe {
        if !(*value).is_null() && **value != 0 {
            *extra = copy(CStr::from_ptr(*value)).cast();
            std::ptr::write_bytes(*value, 0, libc::strlen(*value));
        }
        true
    }
}

/// # Safety
/// Only for `extra` of a check hook.
unsafe fn copy(value: &CStr) -> *mut c_char {
    let bytes = value.to_bytes_with_nul();
    // SAFETY: as large as what is copied there; allocated as this version of PostgreSQL frees it.
    unsafe {
        #[cfg(feature = "pg15")]
        let place = libc::malloc(bytes.len()).cast::<c_char>();
        #[cfg(not(feature = "pg15"))]
        let place = pg_sys::guc_malloc(pg_sys::LOG as i32, bytes.len()).cast::<c_char>();
        if !place.is_null() {
            std::ptr::copy_nonoverlapping(value.as_ptr(), place, bytes.len());
        }
        place
    }
}

/// Assign hook: stores the value.
#[pg_guard]
pub unsafe extern "C-unwind" fn assign(_value: *const c_char, extra: *mut c_void) {
    let value = if extra.is_null() {
        String::new()
    } else {
        // SAFETY: what the check hook left, a C string.
        unsafe { CStr::from_ptr(extra.cast::<c_char>()) }.to_string_lossy().into_owned()
    };
    let shown = CString::new(masked(&value)).unwrap_or_default();
    REDIS_URL.set(Secret { value, shown });
}

/// Show hook.
#[pg_guard]
pub unsafe extern "C-unwind" fn show() -> *const c_char {
    // The string stays where it is until the next assignment.
    REDIS_URL.with_borrow(|secret| secret.shown.as_ptr())
}

/// The URL without its password and without any part that may contain one.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.is_empty() { String::new() } else { "***".into() };
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    match rest.rsplit_once('@') {
        None => format!("{scheme}://{rest}"),
        Some((credentials, place)) => {
            let user = credentials.split_once(':').map_or("", |(user, _)| user);
            format!("{scheme}://{user}:***@{place}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_password() {
        assert_eq!(masked(""), "");
        assert_eq!(masked("redis://127.0.0.1:6379/1"), "redis://127.0.0.1:6379/1");
        assert_eq!(masked("redis://:secret@host:1"), "redis://:***@host:1");
        assert_eq!(masked("rediss://ann:se@cr/et:@host/2"), "rediss://ann:***@host/2");
        assert_eq!(masked("redis+unix:///run/redis?pass=secret"), "redis+unix:///run/redis");
        assert_eq!(masked("redis://token@host"), "redis://:***@host");
        assert_eq!(masked("secret"), "***");
    }
}
