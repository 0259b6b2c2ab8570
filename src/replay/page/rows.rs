//! The rows that pages and fetches return: events and gaps.

use std::cell::Cell;

use pgrx::{IntoDatum, PgMemoryContexts, pg_sys};

use super::copy::{COLUMNS, CURSOR, Copier, EVENT};
use crate::error::{Error, Result};
use crate::metrics;
use crate::pg::function;
use crate::pg::streaming::SlotRow;
use crate::replay::token::{MAX_TEXT, Signer, Token};
use crate::shmem::counter::Counter;

const ORG: usize = 2;
const KIND: usize = 14;
const GAP_FROM: usize = 15;
const GAP_TO: usize = 16;
const GAP_REASON: usize = 17;

/// Why events were lost before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Purged, or hidden until the next purge.
    Retention,
    /// The org was erased.
    Erased,
    /// Deleted from the table by hand.
    Deleted,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Erased => "erased",
            Self::Deleted => "deleted",
        }
    }
}

/// A range of event time in which events were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// PostgreSQL's microseconds.
    pub from: i64,
    pub to: i64,
    pub reason: Reason,
}

/// Bytes of free memory that a session keeps between pages, and the size from which a block is returned at once.
const KEPT: (i32, i32) = (8 << 20, 4 << 20);

/// Makes the C library keep the memory of a page for the next one. By default it returns the memory to the system after each page
/// and requests it again (see "Mechanisms kept on purpose" in docs/architecture.md).
fn keep_memory() {
    thread_local! {
        static KEEPS: Cell<bool> = const { Cell::new(false) };
    }
    if !KEEPS.replace(true) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: sets two limits.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT.0);
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT.1);
        }
    }
}

/// Collects the result rows of one call.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    org: Option<pg_sys::Datum>,
    event: Option<pg_sys::Datum>,
    text: Text,
    copier: Copier,
    signer: Signer,
    count: usize,
}

impl Rows {
    /// # Safety
    /// `fcinfo` must come from PostgreSQL, for a function that returns a set of these columns, outside of any SPI connection.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo, org: &str, signer: Signer) -> Self {
        keep_memory();
        // SAFETY: the caller's promise.
        let (store, descriptor) = unsafe { function::materialize(fcinfo) };
        let org = org.into_datum();
        let (event, text, copier) = (EVENT.into_datum(), Text::default(), Copier::default());
        Self { store, descriptor, org, event, text, copier, signer, count: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a row of `storage::events::COLUMNS`, with the token to continue after it.
    pub fn event(&mut self, row: &SlotRow<'_>, token: &Token) {
        let signer = &self.signer;
        if let Some(copy) = self.copier.copy(row, |room| signer.write(token, room)) {
            self.count += 1;
            // SAFETY: a row of the store's columns, which is copied.
            unsafe { pg_sys::tuplestore_puttuple(self.store, copy) };
        } else {
            let values = self.columns(row);
            self.put(values, token);
        }
    }

    fn columns(&self, row: &SlotRow<'_>) -> [Option<pg_sys::Datum>; COLUMNS] {
        let mut values = [None; COLUMNS];
        for (column, value) in values.iter_mut().enumerate().take(CURSOR) {
            *value = row.datum(column);
        }
        values[KIND] = self.event;
        values
    }

    /// Forms the same row in `memory`, to be added later.
    pub fn form(&self, row: &SlotRow<'_>, token: &Token, memory: &PgMemoryContexts) -> Formed {
        let mut values = self.columns(row);
        let mut text = Text::default();
        values[CURSOR] = Some(text.of(&self.signer, token));
        let (mut values, mut nulls) = split(values);
        // SAFETY: values of the descriptor's columns.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(memory.value());
            let row = pg_sys::heap_form_tuple(self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::MemoryContextSwitchTo(before);
            Formed(row)
        }
    }

    pub fn put_formed(&mut self, row: Formed) {
        self.count += 1;
        // SAFETY: a row of the store's descriptor. It is copied; the original is freed with its memory context.
        unsafe { pg_sys::tuplestore_puttuple(self.store, row.0) };
    }

    pub fn gap(&mut self, gap: Gap, token: &Token) {
        metrics::count(Counter::ReplayGaps, 1);
        let mut values = [None; COLUMNS];
        values[ORG] = self.org;
        values[KIND] = "gap".into_datum();
        values[GAP_FROM] = Some(gap.from.into());
        values[GAP_TO] = Some(gap.to.into());
        values[GAP_REASON] = gap.reason.name().into_datum();
        self.put(values, token);
    }

    fn put(&mut self, mut values: [Option<pg_sys::Datum>; COLUMNS], token: &Token) {
        values[CURSOR] = Some(self.text.of(&self.signer, token));
        self.count += 1;
        let (mut values, mut nulls) = split(values);
        // SAFETY: the store copies a row of its descriptor's columns.
        unsafe {
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

/// A row that was formed and not added yet.
pub struct Formed(pg_sys::HeapTuple);

fn split(values: [Option<pg_sys::Datum>; COLUMNS]) -> ([pg_sys::Datum; COLUMNS], [bool; COLUMNS]) {
    (values.map(|value| value.unwrap_or(pg_sys::Datum::null())), values.map(|value| value.is_none()))
}

/// A text value whose memory is reused.
#[repr(align(8))]
struct Text {
    bytes: [u8; HEADER + MAX_TEXT],
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; HEADER + MAX_TEXT] }
    }
}

/// The length word before a text.
const HEADER: usize = 4;

impl Text {
    /// Valid until the next call.
    fn of(&mut self, signer: &Signer, token: &Token) -> pg_sys::Datum {
        let length = HEADER + signer.write(token, &mut self.bytes[HEADER..]);
        // SAFETY: the memory is aligned, begins with room for the length word, and is as long as that says.
        unsafe {
            let value = self.bytes.as_mut_ptr();
            pgrx::varlena::set_varsize_4b(value.cast(), length as i32);
            pg_sys::Datum::from(value)
        }
    }
}

/// A text value.
pub fn datum(text: &str) -> Result<pg_sys::Datum> {
    text.into_datum().ok_or(Error::Internal("a text without value"))
}
