//! Whether the client of this session is still connected.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use crate::error::{Error, Result};

unsafe extern "C-unwind" {
    /// PostgreSQL's own, which `client_connection_check_interval` uses: looks at the socket without waiting.
    fn pq_check_connection() -> bool;
}

/// Error if the client has closed its connection. A process without a client has none that could be gone.
pub fn require() -> Result<()> {
    // SAFETY: reads one variable; a session with a client has a socket to look at.
    let connected =
        unsafe { pg_sys::MyProcPort.is_null() || pg_guard_ffi_boundary(|| pq_check_connection()) };
    // Looking at the socket may have reset the latch that announces an interrupt.
    pg_sys::check_for_interrupts!();
    if connected { Ok(()) } else { Err(Error::ClientGone) }
}
