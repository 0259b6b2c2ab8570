//! Reads heap blocks of a chunk without a plan.

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{PgTupleDesc, itemptr, pg_sys};

use crate::pg::streaming::SlotRow;
use crate::storage::block_hint::BlockHint;
use crate::storage::events::EVENTS;

/// Calls `take` with every row in the blocks that is visible to the active snapshot, until it returns false. Returns no rows if
/// the chunk does not exist, is not a plain heap, or has other columns.
pub fn scan(block_hint: &BlockHint, mut take: impl FnMut(&SlotRow<'_>) -> bool) {
    // SAFETY: acquires a lock as any SELECT does, and keeps it; NULL if the relation does not exist.
    let relation = unsafe {
        pg_sys::try_relation_open(pg_sys::Oid::from(block_hint.chunk), pg_sys::AccessShareLock as i32)
    };
    if relation.is_null() {
        return;
    }
    // SAFETY: the relation is open until the end of the scan.
    unsafe {
        if let Some(attributes) = attributes(relation) {
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            let mut more = true;
            for run in &block_hint.runs {
                if !more {
                    break;
                }
                more = each(relation, *run, slot, |slot| take(&SlotRow::of(slot, Some(&attributes))));
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
    }
}

/// The index of each column of `EVENTS` in the relation; `None` unless it is a plain heap that has all of them.
unsafe fn attributes(relation: pg_sys::Relation) -> Option<Vec<usize>> {
    // SAFETY: the relation is open; its descriptor is not released here.
    let (form, descriptor) =
        unsafe { (&*(*relation).rd_rel, PgTupleDesc::from_pg_unchecked((*relation).rd_att)) };
    if form.relkind as u8 != pg_sys::RELKIND_RELATION || form.relam != pg_sys::HEAP_TABLE_AM_OID {
        return None;
    }
    EVENTS.attributes_in(&descriptor)
}

/// Scans a range of tuple ids, as the executor does. Returns whether it reached the end.
unsafe fn each(
    relation: pg_sys::Relation,
    (first, last): (u32, u32),
    slot: *mut pg_sys::TupleTableSlot,
    mut take: impl FnMut(*mut pg_sys::TupleTableSlot) -> bool,
) -> bool {
    use pg_sys::ScanOptions::{SO_ALLOW_PAGEMODE, SO_TYPE_TIDRANGESCAN};
    // SAFETY: calls the table's access method by its rules. An error passes through the boundary, and the end of the transaction
    // frees the scan.
    unsafe {
        let methods = &*(*relation).rd_tableam;
        let (Some(begin), Some(set_range), Some(next), Some(end)) = (
            methods.scan_begin,
            methods.scan_set_tidrange,
            methods.scan_getnextslot_tidrange,
            methods.scan_end,
        ) else {
            return false;
        };
        let mut lowest = pg_sys::ItemPointerData::default();
        let mut highest = pg_sys::ItemPointerData::default();
        itemptr::item_pointer_set_all(&mut lowest, first, 0);
        itemptr::item_pointer_set_all(&mut highest, last, u16::MAX);
        let none: *mut core::ffi::c_void = std::ptr::null_mut();
        let flags = SO_TYPE_TIDRANGESCAN | SO_ALLOW_PAGEMODE;
        let snapshot = pg_sys::GetActiveSnapshot();
        let scan = pg_guard_ffi_boundary(|| {
            let scan = begin(relation, snapshot, 0, none.cast(), none.cast(), flags);
            set_range(scan, &mut lowest, &mut highest);
            scan
        });
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        let mut more = true;
        while more && pg_guard_ffi_boundary(|| next(scan, forward, slot)) {
            more = take(slot);
        }
        pg_sys::ExecClearTuple(slot);
        pg_guard_ffi_boundary(|| end(scan));
        more
    }
}
