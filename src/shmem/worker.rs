//! The state of a worker, as other processes see it.

use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering::Relaxed};

use pgrx::pg_sys;

/// The workers of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Sequencer = 0,
    Mirror = 1,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Sequencer, Self::Mirror];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sequencer => "sequencer",
            Self::Mirror => "mirror",
        }
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not running.
    Stopped = 0,
    /// Nothing to do: no extension, no URL, or switched off.
    Off = 1,
    Running = 2,
    /// Waiting for Redis to answer for the first time since it was lost.
    Connecting = 3,
    /// The last attempt failed; the next one follows after a pause.
    Failing = 4,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Off => "off",
            Self::Running => "running",
            Self::Connecting => "connecting",
            Self::Failing => "failing",
        }
    }

    fn from(number: i32) -> Self {
        let all = [Self::Off, Self::Running, Self::Connecting, Self::Failing];
        all.into_iter().find(|state| *state as i32 == number).unwrap_or(Self::Stopped)
    }
}

/// The state of one worker.
#[derive(Default)]
pub struct WorkerState {
    pid: AtomicI32,
    latch: AtomicPtr<pg_sys::Latch>,
    state: AtomicI32,
}

impl WorkerState {
    /// Registers the calling process. Returns false if another process is registered.
    pub fn enter(&self) -> bool {
        // SAFETY: reads variables of the process; its latch is in shared memory.
        let (pid, latch) = unsafe { (pg_sys::MyProcPid, pg_sys::MyLatch) };
        let entered = self.pid.compare_exchange(0, pid, Relaxed, Relaxed).is_ok();
        if entered {
            self.latch.store(latch, Relaxed);
        }
        entered
    }

    pub fn leave(&self) {
        self.latch.store(std::ptr::null_mut(), Relaxed);
        self.state.store(State::Stopped as i32, Relaxed);
        self.pid.store(0, Relaxed);
    }

    /// 0 if the worker does not run.
    pub fn pid(&self) -> i32 {
        self.pid.load(Relaxed)
    }

    pub fn state(&self) -> State {
        State::from(self.state.load(Relaxed))
    }

    pub fn set_state(&self, state: State) {
        self.state.store(state as i32, Relaxed);
    }

    /// Sets the worker's latch. If the latch belongs to another process by now, that process ignores it.
    pub fn wake(&self) {
        let latch = self.latch.load(Relaxed);
        if !latch.is_null() {
            // SAFETY: latches are in shared memory for as long as the server runs.
            unsafe { pg_sys::SetLatch(latch) };
        }
    }
}
