//! Whether the client of this session is still connected.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use crate::error::{Error, Result};

unsafe extern "C-unwind" {
    /// PostgreSQL's check for `client_connection_check_interval`: polls the socket without waiting.
    fn pq_check_connection() -> bool;
}

/// Error if the client has closed its connection. Never an error in a process without a client.
pub fn require() -> Result<()> {
    // SAFETY: reads one variable; a session with a client has a socket to look at.
    let connected =
        unsafe { pg_sys::MyProcPort.is_null() || pg_guard_ffi_boundary(|| pq_check_connection()) };
    // Polling the socket may have reset the latch that announces an interrupt.
    pg_sys::check_for_interrupts!();
    if connected { Ok(()) } else { Err(Error::ClientGone) }
}
