//! Reads tables as PostgreSQL reads its catalogs: without privileges, plan or executor.

use std::num::NonZeroUsize;

use pgrx::{FromDatum, pg_sys};

/// Most columns that a scan compares.
const MAX_KEYS: usize = 2;

/// The current row of a scan. Columns are counted from 1.
pub struct ScannedRow {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl ScannedRow {
    /// `None` for NULL. What refers to the row's own memory is valid until the next row.
    pub fn value<T: FromDatum>(&self, column: usize) -> Option<T> {
        // SAFETY: whoever asks for a column knows its type.
        unsafe { T::from_datum(self.datum(column)?, false) }
    }

    /// `None` for NULL; valid until the next row.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the tuple is of this descriptor and pinned while the scan stands on it.
        unsafe { pgrx::htup::heap_getattr_raw(self.tuple, NonZeroUsize::new(column)?, self.descriptor) }
    }
}

/// A column and the value that it must equal.
#[derive(Debug, Clone, Copy)]
pub struct ScanKey {
    column: usize,
    equal: u32,
    value: pg_sys::Datum,
}

impl ScanKey {
    /// A text column with COLLATE "C".
    pub fn text(column: usize, value: pg_sys::Datum) -> Self {
        Self { column, equal: pg_sys::F_TEXTEQ, value }
    }

    pub fn int8(column: usize, value: i64) -> Self {
        Self { column, equal: pg_sys::F_INT8EQ, value: value.into() }
    }
}

/// Calls `each` with every row that is committed now or was written by this transaction.
pub fn scan(table: pg_sys::Oid, each: impl FnMut(&ScannedRow)) {
    scan_index(table, pg_sys::InvalidOid, &[], each);
}

/// As `scan`, for the rows that match the keys. The keys must be the leading columns of the index.
pub fn scan_index(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    keys: &[ScanKey],
    mut each: impl FnMut(&ScannedRow),
) {
    let mut scan_keys = [pg_sys::ScanKeyData::default(); MAX_KEYS];
    let count = keys.len().min(MAX_KEYS);
    // SAFETY: the sequence PostgreSQL prescribes; an error on the way ends the transaction, which frees all of it.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        for (place, key) in scan_keys.iter_mut().zip(keys) {
            let (equal, strategy) = (pg_sys::Oid::from(key.equal), pg_sys::BTEqualStrategyNumber as u16);
            pg_sys::ScanKeyInit(place, key.column as i16, strategy, equal, key.value);
        }
        let by_index = index != pg_sys::InvalidOid;
        // Without a snapshot it takes a new one, also in a parallel worker, where GetLatestSnapshot() fails.
        let newest = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(
            relation,
            index,
            by_index,
            newest,
            count as i32,
            scan_keys.as_mut_ptr(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(&ScannedRow { tuple, descriptor: (*relation).rd_att });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
}
