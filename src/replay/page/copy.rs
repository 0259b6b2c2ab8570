//! Forms rows of a page from rows of the table without deforming them.
//!
//! The first columns of a page are those of the table, in the same order and of the same types. The data of a stored row, except
//! for its end, is therefore the start of the page's row: it is copied, and the columns that the page adds are written after it.
//! Deforming and forming the row again takes much longer (see "Mechanisms kept on purpose" in docs/architecture.md).
//!
//! For the layout of a row see "Database Page Layout" in PostgreSQL's documentation, and heaptuple.c.

use pgrx::{PgTupleDesc, pg_sys};

use crate::pg::streaming::SlotRow;
use crate::replay::token::MAX_TEXT;
use crate::storage::events;

/// Columns of a result: those of tailstream.log_events, then cursor, kind, gap_from, gap_to, gap_reason.
pub const COLUMNS: usize = 18;
/// The number of the column `cursor`.
pub const CURSOR: usize = 13;

/// The `kind` of an event.
pub const EVENT: &str = "event";

/// Columns of the table.
const STORED: usize = events::COLUMNS.len();
/// The table's last column, which is never NULL and is not copied, and its size in bytes.
const LAST_COLUMN: usize = STORED - 1;
const LAST: usize = size_of::<i16>();

const BITMAP: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
/// Where the data starts: after the null bitmap, at a multiple of 8.
const HEADER: usize = (BITMAP + COLUMNS.div_ceil(8)).next_multiple_of(8);

/// Longest text with a one-byte header, which needs no alignment.
const SHORT: usize = 126;
/// Most bytes after the copied data: padding to a multiple of 4, and two texts.
const ADDED: usize = 3 + 1 + MAX_TEXT + 1 + EVENT.len();

const _: () = {
    assert!(CURSOR == LAST_COLUMN, "the page's own columns take the place of the table's last");
    assert!(CURSOR / 8 == 1 && COLUMNS <= 24, "the bits of the page's own columns are as `header` sets them");
    assert!(MAX_TEXT <= SHORT);
};

/// Forms one row after another in the same memory.
#[derive(Default)]
pub struct Copier {
    /// Words, for the alignment of a row.
    space: Vec<u64>,
    row: pg_sys::HeapTupleData,
    /// The row type of the last table, and whether it has the expected columns. This cannot change while the table is read.
    known: Option<(pg_sys::Oid, bool)>,
}

impl Copier {
    /// The page's row for an event, valid until the next call; `None` if the stored row has another layout. `write` writes the token
    /// into the given space and returns its length.
    pub fn copy(
        &mut self,
        event: &SlotRow<'_>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<*mut pg_sys::HeapTupleData> {
        let (stored, descriptor) = event.stored()?;
        if !self.is_known(descriptor) {
            return None;
        }
        // SAFETY: a tuple in a buffer that is pinned as long as the row is used; it is `t_len` bytes long.
        let (header, whole) = unsafe {
            let header = (*stored).t_data;
            (&*header, std::slice::from_raw_parts(header.cast::<u8>(), (*stored).t_len as usize))
        };
        // A column that was added, even temporarily, leaves rows with another layout.
        if u32::from(header.t_infomask2) & pg_sys::HEAP_NATTS_MASK != STORED as u32 {
            return None;
        }
        let data = whole.get(usize::from(header.t_hoff)..whole.len() - LAST)?;
        let words = (HEADER + data.len() + ADDED).div_ceil(size_of::<u64>());
        if self.space.len() < words {
            self.space.resize(words, 0);
        }
        // SAFETY: the words as bytes.
        let space = unsafe {
            std::slice::from_raw_parts_mut(self.space.as_mut_ptr().cast::<u8>(), size_of_val(&*self.space))
        };
        let has_null = u32::from(header.t_infomask) & pg_sys::HEAP_HASNULL != 0;
        let bits = if has_null { [whole[BITMAP], whole[BITMAP + 1]] } else { [0xff; 2] };
        // In PostgreSQL 18, a NOT NULL constraint may be NOT VALID, so older rows may violate it.
        if bits[LAST_COLUMN / 8] & 1 << (LAST_COLUMN % 8) == 0 {
            return None;
        }
        write_header(&mut space[..HEADER], u32::from(header.t_infomask), bits);
        let end = HEADER + data.len();
        space[HEADER..end].copy_from_slice(data);
        // PostgreSQL skips zero bytes before a text up to the next multiple of 4. The table's last column started at an even
        // offset, so that multiple is the same whether there was a padding byte or not.
        let start = end.next_multiple_of(4);
        space[end..start].fill(0);
        let length = write(&mut space[start + 1..]);
        space[start] = short_header(length);
        let kind = start + 1 + length;
        space[kind] = short_header(EVENT.len());
        let end = kind + 1 + EVENT.len();
        space[kind + 1..end].copy_from_slice(EVENT.as_bytes());
        self.row.t_len = end as u32;
        self.row.t_data = self.space.as_mut_ptr().cast();
        Some(&raw mut self.row)
    }

    fn is_known(&mut self, descriptor: pg_sys::TupleDesc) -> bool {
        // SAFETY: the descriptor of the row that is being read.
        let kind = unsafe { (*descriptor).tdtypeid };
        match self.known {
            Some((known, answer)) if known == kind => answer,
            _ => {
                let answer = kind != pg_sys::RECORDOID && has_our_columns(descriptor);
                self.known = Some((kind, answer));
                answer
            }
        }
    }
}

fn has_our_columns(descriptor: pg_sys::TupleDesc) -> bool {
    // SAFETY: the descriptor lives as long as the row that is being read, and is not released here.
    let descriptor = unsafe { PgTupleDesc::from_pg_unchecked(descriptor) };
    descriptor.len() == STORED
        && descriptor.iter().zip(&events::COLUMNS).all(|(attribute, column)| column.is(attribute))
}

/// Writes the header of a row whose first columns have the null bits of the stored row.
fn write_header(space: &mut [u8], stored: u32, bits: [u8; 2]) {
    space.fill(0);
    // SAFETY: the space is aligned, and longer than the header.
    let header = unsafe { &mut *space.as_mut_ptr().cast::<pg_sys::HeapTupleHeaderData>() };
    header.t_infomask2 = COLUMNS as u16;
    header.t_infomask =
        (pg_sys::HEAP_HASNULL | pg_sys::HEAP_HASVARWIDTH | stored & pg_sys::HEAP_HASEXTERNAL) as u16;
    header.t_hoff = HEADER as u8;
    let own = 0b11 << (CURSOR % 8);
    space[BITMAP] = bits[0];
    space[BITMAP + 1] = bits[1] & ((1 << (CURSOR % 8)) - 1) | own;
}

/// The header of a short text.
fn short_header(length: usize) -> u8 {
    let length = (length + 1) as u8;
    if cfg!(target_endian = "little") { length << 1 | 1 } else { length | 0x80 }
}
