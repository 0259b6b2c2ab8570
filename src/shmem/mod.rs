//! Shared memory: for each database, counters, the states of its workers and how far they are.
//!
//! Nearly all of it is atomics, so no process waits for a lock, or holds one where an error may be raised. Only the texts of
//! errors are protected by a lock, which is held while they are copied. Shared memory starts empty with the server.

pub mod counter;
mod notifier;
mod worker;

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use pgrx::{PGRXSharedMemory, PgAtomic, PgLwLock, pg_guard, pg_shmem_init, pg_sys};

use counter::{Counter, Histogram, Timer};

pub use notifier::Notifier;
pub use worker::{Role, State, WorkerState};

/// Databases of one server that have an entry. A further one gets no counters and no workers.
const MAX_DATABASES: usize = 64;
/// Most bytes that are kept of a worker's last error.
const MAX_ERROR: usize = 400;

/// How far the sequencer and the mirror are.
#[derive(Default)]
pub struct Progress {
    /// The last position that the sequencer assigned; 0 before the first.
    last_seq: AtomicI64,
    /// The position that the mirror sends next; 0 if it is not known.
    next_seq: AtomicI64,
    /// Number of events of that position that were sent.
    next_offset: AtomicI32,
    /// PostgreSQL's microseconds; 0 without a connection.
    connected_since: AtomicI64,
    /// Increases when orgs or tiers change in a way that concerns the mirror.
    org_changes: AtomicU32,
    /// When the last poll of the sequencer began, in microseconds since the Unix epoch; 0 before the first. Never decreases.
    last_poll_at: AtomicI64,
}

impl Progress {
    pub fn last_seq(&self) -> i64 {
        self.last_seq.load(Relaxed)
    }

    pub fn set_last_seq(&self, seq: i64) {
        self.last_seq.store(seq, Relaxed);
    }

    /// Position and offset that the mirror sends next.
    pub fn next_position(&self) -> (i64, i32) {
        (self.next_seq.load(Relaxed), self.next_offset.load(Relaxed))
    }

    pub fn set_next_position(&self, seq: i64, offset: i32) {
        self.next_offset.store(offset, Relaxed);
        self.next_seq.store(seq, Relaxed);
    }

    pub fn org_changes(&self) -> u32 {
        self.org_changes.load(Relaxed)
    }

    pub fn add_org_change(&self) {
        self.org_changes.fetch_add(1, Relaxed);
    }

    /// A transaction that gets its id after this call records its batches as received at this time or later.
    pub fn last_poll_at(&self) -> i64 {
        self.last_poll_at.load(Acquire)
    }

    /// Records the start of a poll. Returns the recorded time, which is never earlier than the previous one.
    pub fn begin_poll(&self, time: i64) -> i64 {
        self.last_poll_at.fetch_max(time, AcqRel).max(time)
    }

    pub fn connected_since(&self) -> i64 {
        self.connected_since.load(Relaxed)
    }

    pub fn set_connected_since(&self, time: i64) {
        self.connected_since.store(time, Relaxed);
    }
}

/// Notifiers of a database. Orgs share them by hash.
const NOTIFIERS: usize = 64;

/// The entry of one database.
pub struct DatabaseState {
    /// Oid of the database; 0 if the entry is free.
    oid: AtomicU32,
    /// Whether the workers must not run, because a command needs the database without sessions.
    paused: AtomicBool,
    workers: [WorkerState; 2],
    pub progress: Progress,
    counters: [AtomicU64; Counter::COUNT],
    histograms: [Histogram; Timer::COUNT],
    notifiers: [Notifier; NOTIFIERS],
}

impl Default for DatabaseState {
    fn default() -> Self {
        Self {
            oid: AtomicU32::default(),
            paused: AtomicBool::default(),
            workers: Default::default(),
            progress: Progress::default(),
            counters: Default::default(),
            histograms: Default::default(),
            notifiers: std::array::from_fn(|_| Notifier::default()),
        }
    }
}

impl DatabaseState {
    /// The notifier of an org.
    pub fn notifier(&self, org: &str) -> &Notifier {
        &self.notifiers[Self::notifier_number(org)]
    }

    /// The number of an org's notifier: the same in every process.
    pub fn notifier_number(org: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        org.hash(&mut hasher);
        hasher.finish() as usize % NOTIFIERS
    }

    /// Wakes the sessions that wait on these notifiers, a bit for each number.
    pub fn notify(&self, numbers: u64) {
        for (number, notifier) in self.notifiers.iter().enumerate() {
            if numbers & (1 << number) != 0 {
                notifier.notify_all();
            }
        }
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    pub fn worker(&self, role: Role) -> &WorkerState {
        &self.workers[role as usize]
    }

    pub fn count(&self, counter: Counter, amount: u64) {
        self.counters[counter as usize].fetch_add(amount, Relaxed);
    }

    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    pub fn histogram(&self, timer: Timer) -> &Histogram {
        &self.histograms[timer as usize]
    }

    fn clear(&self) {
        for counter in &self.counters {
            counter.store(0, Relaxed);
        }
        for histogram in &self.histograms {
            histogram.clear();
        }
        self.progress.set_last_seq(0);
        self.progress.set_next_position(0, 0);
        self.progress.set_connected_since(0);
        self.set_paused(false);
    }
}

struct Shared {
    databases: [DatabaseState; MAX_DATABASES],
    launcher: WorkerState,
}

// SAFETY: atomics, PostgreSQL's own structures for shared memory, and pointers into it.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            databases: std::array::from_fn(|_| DatabaseState::default()),
            launcher: WorkerState::default(),
        }
    }
}

/// The last error of a worker.
#[derive(Default)]
struct LastError {
    /// PostgreSQL's microseconds.
    at: i64,
    text: heapless::String<MAX_ERROR>,
}

#[derive(Default)]
struct LastErrors {
    of_workers: heapless::Vec<[LastError; 2], MAX_DATABASES>,
}

// SAFETY: plain memory of a fixed size, read and written under the lock around it.
unsafe impl PGRXSharedMemory for LastErrors {}

impl LastErrors {
    fn empty() -> Self {
        let mut errors = Self::default();
        while errors.of_workers.push(Default::default()).is_ok() {}
        errors
    }
}

// SAFETY: the names are unique.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"tailstream") };
// SAFETY: as above.
static LAST_ERRORS: PgLwLock<LastErrors> = unsafe { PgLwLock::new(c"tailstream_errors") };

thread_local! {
    /// Whether there is shared memory, which is reserved if the library is in shared_preload_libraries.
    static PRELOADED: Cell<bool> = const { Cell::new(false) };
    /// Index of this process's database, once it was looked up.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Reserves the memory. Called while the server starts.
pub fn reserve() {
    PRELOADED.set(true);
    pg_shmem_init!(SHARED);
    pg_shmem_init!(LAST_ERRORS = LastErrors::empty());
}

pub fn is_preloaded() -> bool {
    PRELOADED.get()
}

fn databases() -> &'static [DatabaseState] {
    if is_preloaded() { &SHARED.get().databases } else { &[] }
}

/// The state of the launcher.
pub fn launcher() -> Option<&'static WorkerState> {
    is_preloaded().then(|| &SHARED.get().launcher)
}

/// The entry of a database, if it has one.
pub fn find(database: pg_sys::Oid) -> Option<&'static DatabaseState> {
    databases().iter().find(|shared| shared.oid.load(Relaxed) == database.to_u32())
}

/// The entry of a database; takes a free one if it has none. `None` without shared memory, or if none is free.
pub fn claim(database: pg_sys::Oid) -> Option<&'static DatabaseState> {
    if database == pg_sys::InvalidOid {
        return None;
    }
    find(database).or_else(|| {
        let free = databases()
            .iter()
            .find(|shared| shared.oid.compare_exchange(0, database.to_u32(), Relaxed, Relaxed).is_ok())?;
        // Two processes may take one each at the same time. The first entry is used; the launcher frees the other.
        find(database).or(Some(free))
    })
}

/// The entry of this process's database.
pub fn own() -> Option<&'static DatabaseState> {
    if let Some(index) = OWN.get() {
        return databases().get(index);
    }
    // SAFETY: reads one variable.
    let shared = claim(unsafe { pg_sys::MyDatabaseId })?;
    OWN.set(databases().iter().position(|other| std::ptr::eq(other, shared)));
    Some(shared)
}

/// Frees the entries of databases that no longer exist, and second entries of one database.
pub fn release_unless(exists: impl Fn(pg_sys::Oid) -> bool) {
    let mut seen = Vec::new();
    for (index, shared) in databases().iter().enumerate() {
        let number = shared.oid.load(Relaxed);
        let stale = number != 0 && (seen.contains(&number) || !exists(pg_sys::Oid::from(number)));
        let idle = Role::ALL.iter().all(|role| shared.worker(*role).pid() == 0);
        if stale && idle {
            shared.clear();
            if let Some(errors) = LAST_ERRORS.exclusive().of_workers.get_mut(index) {
                *errors = Default::default();
            }
            shared.oid.store(0, Relaxed);
        }
        seen.push(number);
    }
}

/// Records the last error of a worker. `at` is in PostgreSQL's microseconds.
pub fn record_error(shared: &'static DatabaseState, role: Role, at: i64, message: &str) {
    let mut text = heapless::String::new();
    for character in message.chars() {
        if text.push(character).is_err() {
            break;
        }
    }
    let Some(index) = databases().iter().position(|other| std::ptr::eq(other, shared)) else { return };
    if let Some(errors) = LAST_ERRORS.exclusive().of_workers.get_mut(index) {
        errors[role as usize] = LastError { at, text };
    }
}

/// The last error of a worker and its time in PostgreSQL's microseconds.
pub fn last_error(shared: &'static DatabaseState, role: Role) -> Option<(String, i64)> {
    let index = databases().iter().position(|other| std::ptr::eq(other, shared))?;
    let errors = LAST_ERRORS.share();
    let last = &errors.of_workers.get(index)?[role as usize];
    (last.at != 0).then(|| (last.text.as_str().to_owned(), last.at))
}
