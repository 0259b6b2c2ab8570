//! What the server's processes share: counters, and what the workers of each database are doing.
//!
//! Nearly all of it is atomics, so that nobody ever waits or holds a lock where something may be raised.
//! Only the texts are behind one, and held for a copy. All of it starts from nothing with the server.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use pgrx::{PGRXSharedMemory, PgAtomic, PgLwLock, pg_guard, pg_shmem_init, pg_sys};

pub use super::bell::Bell;
use super::counter::{Counter, Histogram, Timer};
pub use super::worker::{Role, State, WorkerCell};

/// More databases than that in one server share nothing here: theirs are not counted and get no workers.
const MAX_DATABASES: usize = 64;
/// Bytes of a worker's last error that are kept.
const MAX_ERROR: usize = 400;

/// Where the mirror is.
#[derive(Default)]
pub struct Progress {
    /// The last position that the sequencer gave; 0 while it gave none.
    placed_seq: AtomicI64,
    /// The position the mirror sends next; 0 while it does not know.
    next_seq: AtomicI64,
    /// Events of that position it has sent.
    next_offset: AtomicI32,
    /// PostgreSQL's microseconds; 0 without connection.
    connected_since: AtomicI64,
    /// Grows when something about orgs changes that the mirror has to know.
    requests: AtomicU32,
    /// When the sequencer last began to look, in microseconds since the Unix epoch; 0 before. Never decreases.
    looked_at: AtomicI64,
}

impl Progress {
    pub fn placed_seq(&self) -> i64 {
        self.placed_seq.load(Relaxed)
    }

    pub fn set_placed_seq(&self, seq: i64) {
        self.placed_seq.store(seq, Relaxed);
    }

    /// Position and offset that the mirror sends next.
    pub fn cursor(&self) -> (i64, i32) {
        (self.next_seq.load(Relaxed), self.next_offset.load(Relaxed))
    }

    pub fn set_cursor(&self, seq: i64, offset: i32) {
        self.next_offset.store(offset, Relaxed);
        self.next_seq.store(seq, Relaxed);
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    pub fn add_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// A transaction that gets its id from now on stamps its batches with this time or a later one.
    pub fn looked_at(&self) -> i64 {
        self.looked_at.load(Acquire)
    }

    /// Returns the time that it is set to: not earlier than it was.
    pub fn look_at(&self, time: i64) -> i64 {
        self.looked_at.fetch_max(time, AcqRel).max(time)
    }

    pub fn connected_since(&self) -> i64 {
        self.connected_since.load(Relaxed)
    }

    pub fn set_connected_since(&self, time: i64) {
        self.connected_since.store(time, Relaxed);
    }
}

/// Bells of a database; orgs share them by their hash.
const BELLS: usize = 64;

/// One database.
pub struct Slot {
    /// Oid of the database; 0 if the slot is free.
    database: AtomicU32,
    /// Somebody drops the database: no workers.
    paused: AtomicBool,
    workers: [WorkerCell; 2],
    pub progress: Progress,
    counters: [AtomicU64; Counter::COUNT],
    histograms: [Histogram; Timer::COUNT],
    bells: [Bell; BELLS],
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            database: AtomicU32::default(),
            paused: AtomicBool::default(),
            workers: Default::default(),
            progress: Progress::default(),
            counters: Default::default(),
            histograms: Default::default(),
            bells: std::array::from_fn(|_| Bell::default()),
        }
    }
}

impl Slot {
    /// The bell that is rung for an org.
    pub fn bell(&self, org: &str) -> &Bell {
        &self.bells[Self::bell_of(org)]
    }

    /// The number of an org's bell.
    pub fn bell_of(org: &str) -> usize {
        // Without a key: the same in every process.
        let mut hasher = DefaultHasher::new();
        org.hash(&mut hasher);
        hasher.finish() as usize % BELLS
    }

    /// Wakes those who wait for events of orgs with these bells, one bit for each.
    pub fn ring(&self, bells: u64) {
        for (number, bell) in self.bells.iter().enumerate() {
            if bells & (1 << number) != 0 {
                bell.ring();
            }
        }
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    pub fn worker(&self, role: Role) -> &WorkerCell {
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
        self.progress.set_placed_seq(0);
        self.progress.set_cursor(0, 0);
        self.progress.set_connected_since(0);
        self.set_paused(false);
    }
}

struct Shared {
    slots: [Slot; MAX_DATABASES],
    launcher: WorkerCell,
}

// SAFETY: atomics, PostgreSQL's own structures for shared memory, and pointers into it.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), launcher: WorkerCell::default() }
    }
}

/// The last error of a worker, kept until the next one.
#[derive(Default)]
struct Note {
    /// PostgreSQL's microseconds.
    at: i64,
    text: heapless::String<MAX_ERROR>,
}

#[derive(Default)]
struct Notes {
    of_workers: heapless::Vec<[Note; 2], MAX_DATABASES>,
}

// SAFETY: plain memory of a fixed size, read and written under the lock around it.
unsafe impl PGRXSharedMemory for Notes {}

impl Notes {
    fn empty() -> Self {
        let mut notes = Self::default();
        while notes.of_workers.push(Default::default()).is_ok() {}
        notes
    }
}

// SAFETY: nobody else has these names.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"tailstream") };
// SAFETY: as above.
static NOTES: PgLwLock<Notes> = unsafe { PgLwLock::new(c"tailstream_errors") };

thread_local! {
    /// Whether there is shared memory: the library was there when the server started.
    static PRELOADED: Cell<bool> = const { Cell::new(false) };
    /// This process's database, once it was looked up.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Reserves the memory; while the server starts.
pub fn reserve() {
    PRELOADED.set(true);
    pg_shmem_init!(SHARED);
    pg_shmem_init!(NOTES = Notes::empty());
}

pub fn is_preloaded() -> bool {
    PRELOADED.get()
}

fn slots() -> &'static [Slot] {
    if is_preloaded() { &SHARED.get().slots } else { &[] }
}

/// The cell of the process that starts the workers.
pub fn launcher() -> Option<&'static WorkerCell> {
    is_preloaded().then(|| &SHARED.get().launcher)
}

/// The slot of a database, if it has one.
pub fn find(database: pg_sys::Oid) -> Option<&'static Slot> {
    slots().iter().find(|slot| slot.database.load(Relaxed) == database.to_u32())
}

/// The slot of a database; takes a free one if it has none. `None` without shared memory, or if all are taken.
pub fn claim(database: pg_sys::Oid) -> Option<&'static Slot> {
    if database == pg_sys::InvalidOid {
        return None;
    }
    find(database).or_else(|| {
        let free = slots()
            .iter()
            .find(|slot| slot.database.compare_exchange(0, database.to_u32(), Relaxed, Relaxed).is_ok())?;
        // Two processes may have taken one each; the first counts, the launcher frees the other.
        find(database).or(Some(free))
    })
}

/// The slot of this process's database.
pub fn own() -> Option<&'static Slot> {
    if let Some(index) = OWN.get() {
        return slots().get(index);
    }
    // SAFETY: reads one variable.
    let slot = claim(unsafe { pg_sys::MyDatabaseId })?;
    OWN.set(slots().iter().position(|other| std::ptr::eq(other, slot)));
    Some(slot)
}

/// Frees the slots of databases that are gone, and those that came twice.
pub fn release_unless(exists: impl Fn(pg_sys::Oid) -> bool) {
    let mut seen = Vec::new();
    for (index, slot) in slots().iter().enumerate() {
        let number = slot.database.load(Relaxed);
        let stale = number != 0 && (seen.contains(&number) || !exists(pg_sys::Oid::from(number)));
        let idle = Role::ALL.iter().all(|role| slot.worker(*role).pid() == 0);
        if stale && idle {
            slot.clear();
            if let Some(notes) = NOTES.exclusive().of_workers.get_mut(index) {
                *notes = Default::default();
            }
            slot.database.store(0, Relaxed);
        }
        seen.push(number);
    }
}

/// Writes down what went wrong.
pub fn note_error(slot: &'static Slot, role: Role, at: i64, message: &str) {
    let mut text = heapless::String::new();
    for character in message.chars() {
        if text.push(character).is_err() {
            break;
        }
    }
    let Some(index) = slots().iter().position(|other| std::ptr::eq(other, slot)) else { return };
    if let Some(note) = NOTES.exclusive().of_workers.get_mut(index) {
        note[role as usize] = Note { at, text };
    }
}

/// The last error and when it was, in PostgreSQL's microseconds.
pub fn last_error(slot: &'static Slot, role: Role) -> Option<(String, i64)> {
    let index = slots().iter().position(|other| std::ptr::eq(other, slot))?;
    let notes = NOTES.share();
    let note = &notes.of_workers.get(index)?[role as usize];
    (note.at != 0).then(|| (note.text.as_str().to_owned(), note.at))
}
