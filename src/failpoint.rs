//! Points at which a test can kill a process as `kill -9` does. Compiled only with the feature `failpoints`.

/// Ends the process with SIGKILL if `tailstream.failpoint` names this place.
#[cfg(feature = "failpoints")]
pub fn failpoint(place: &str) {
    use std::cell::Cell;
    thread_local! {
        /// How many times the named place was reached since the setting named it.
        static PASSED: Cell<u32> = const { Cell::new(0) };
    }
    let setting = crate::settings::failpoint();
    let (name, times) = setting.split_once(':').unwrap_or((&setting, "1"));
    if name != place {
        return;
    }
    PASSED.set(PASSED.get() + 1);
    if times.parse() == Ok(PASSED.get()) {
        // SAFETY: the process's own pid.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Does nothing: the feature `failpoints` is off.
#[cfg(not(feature = "failpoints"))]
pub fn failpoint(_place: &str) {}
