//! Rows of a page made from rows of the table without taking them apart.
//!
//! A page begins with the columns that the table begins with, in the same order and of the same types. So the data of a
//! stored row, but for its end, is the beginning of that of a page's row: it is copied, and what the page adds is
//! written behind it. Taking some hundred bytes apart into columns and putting them together again takes much longer.
//!
//! How a row's data lies: "Database Page Layout" in PostgreSQL's documentation, and heaptuple.c.

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
/// The table's last column, which is always there and not copied; its bytes.
const LAST_COLUMN: usize = STORED - 1;
const LAST: usize = size_of::<i16>();

const BITMAP: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
/// Where the data begins: behind a bit for each column, at a multiple of 8.
const HEADER: usize = (BITMAP + COLUMNS.div_ceil(8)).next_multiple_of(8);

/// A text so short has a header of one byte, and begins anywhere.
const SHORT: usize = 126;
/// What may come behind the data: to a multiple of 4, and two texts.
const ADDED: usize = 3 + 1 + MAX_TEXT + 1 + EVENT.len();

const _: () = {
    assert!(CURSOR == LAST_COLUMN, "the page's own columns take the place of the table's last");
    assert!(CURSOR / 8 == 1 && COLUMNS <= 24, "the bits of the page's own columns are as `header` sets them");
    assert!(MAX_TEXT <= SHORT);
};

/// Makes rows in the same memory, one after the other.
#[derive(Default)]
pub struct Copier {
    /// Words, so that it is aligned as a row must be.
    space: Vec<u64>,
    row: pg_sys::HeapTupleData,
    /// The last table that was looked at, by the type of its rows, and whether it has the columns we know. Nobody can
    /// change that while it is read.
    known: Option<(pg_sys::Oid, bool)>,
}

impl Copier {
    /// The page's row for an event, valid until the next one; `None` if the event does not lie as expected. `write` puts
    /// the token into the room that it gets, and returns its length.
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
        // Whoever added a column, even for a while, has made rows of another shape.
        if u32::from(header.t_infomask2) & pg_sys::HEAP_NATTS_MASK != STORED as u32 {
            return None;
        }
        let data = whole.get(usize::from(header.t_hoff)..whole.len() - LAST)?;
        let words = (HEADER + data.len() + ADDED).div_ceil(size_of::<u64>());
        if self.space.len() < words {
            self.space.resize(words, 0);
        }
        // SAFETY: all of the words, as bytes.
        let space = unsafe {
            std::slice::from_raw_parts_mut(self.space.as_mut_ptr().cast::<u8>(), size_of_val(&*self.space))
        };
        let has_null = u32::from(header.t_infomask) & pg_sys::HEAP_HASNULL != 0;
        let bits = if has_null { [whole[BITMAP], whole[BITMAP + 1]] } else { [0xff; 2] };
        // PostgreSQL 18 has NOT NULL constraints that older rows need not fulfil.
        if bits[LAST_COLUMN / 8] & 1 << (LAST_COLUMN % 8) == 0 {
            return None;
        }
        write_header(&mut space[..HEADER], u32::from(header.t_infomask), bits);
        let end = HEADER + data.len();
        space[HEADER..end].copy_from_slice(data);
        // A text that does not begin where the last column ended is looked for at the next multiple of 4, over zeros. The
        // table's last column began at an even place, so that is the same one whether there was a byte between or not.
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

/// The header of a row whose first columns have the bits of the table's row.
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
