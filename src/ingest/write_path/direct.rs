//! The direct write path: inserts rows into a chunk's heap, many at a time, and into its indexes.
//!
//! It is correct only if an INSERT would do nothing else: the chunk is a plain heap with the expected columns, without triggers,
//! without constraints other than its own ranges, not compressed, and without a continuous aggregate. This is checked under
//! locks that keep it true until the transaction ends. Otherwise the executor path is used.

use std::ops::Range;

use pgrx::itemptr::item_pointer_get_both;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::{PgTupleDesc, pg_sys};

use super::Rows;
use super::event_row::EventRow;

use crate::error::Result;
use crate::storage::block_hint::BlockHintBuilder;
use crate::storage::events::EVENTS;
use crate::storage::write_chunk_cache::{self, WritableChunk};

/// Rows per call of the heap's multi-insert. They share pages and WAL records, and are all in memory.
const ROWS_PER_INSERT: usize = 256;

/// Number of CHECK constraints that every chunk has: its ranges of times and of tiers.
const OWN_CONSTRAINTS: u16 = 2;

/// Inserts the rows and adds their blocks to the hint. Returns false, without any effect, if the chunk cannot be written
/// directly.
pub fn insert(
    rows: &Rows,
    range: Range<usize>,
    chunk: &WritableChunk,
    hints: &mut BlockHintBuilder,
) -> Result<bool> {
    let Some(hypertable) = Target::open(EVENTS.relation()?) else {
        return Ok(false);
    };
    let Some(target) = Target::open(chunk.relation) else { return Ok(false) };
    // Acquiring the locks has processed invalidations: the range of the chunk may have changed.
    let writable = write_chunk_cache::is_known(chunk)
        && !hypertable.has_statement_triggers()
        && target.is_ordinary()
        && write_chunk_cache::is_plain(chunk.relation)?;
    if writable {
        let mut writer = Writer::new(&target);
        writer.write(rows, range, hints)?;
        writer.finish();
    }
    Ok(writable)
}

/// Makes the inserted rows visible to later statements of the transaction.
pub fn make_visible() {
    // SAFETY: between statements of a transaction that may write.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// A table that is open, and locked as for an INSERT until the transaction ends.
struct Target {
    relation: pg_sys::Relation,
}

impl Target {
    /// `None` if the table no longer exists.
    fn open(relation: pg_sys::Oid) -> Option<Self> {
        // SAFETY: returns NULL if the relation does not exist.
        let relation = unsafe { pg_sys::try_relation_open(relation, pg_sys::RowExclusiveLock as i32) };
        (!relation.is_null()).then(|| Self { relation })
    }

    fn has_statement_triggers(&self) -> bool {
        // SAFETY: the relation is open; a relation without triggers has no description of them.
        unsafe { (*self.relation).trigdesc.as_ref() }.is_some_and(|triggers| {
            triggers.trig_insert_before_statement
                || triggers.trig_insert_after_statement
                || triggers.trig_insert_new_table
        })
    }

    fn is_ordinary(&self) -> bool {
        // SAFETY: the relation is open, so its cached form and descriptor are there.
        unsafe {
            let form = &*(*self.relation).rd_rel;
            let descriptor = &*(*self.relation).rd_att;
            let constraints = (descriptor.constr.as_ref()).map_or(0, |constraints| constraints.num_check);
            form.relkind as u8 == pg_sys::RELKIND_RELATION
                && form.relam == pg_sys::HEAP_TABLE_AM_OID
                && !form.relhastriggers
                && !form.relhasrules
                && !form.relrowsecurity
                && constraints == OWN_CONSTRAINTS
                && self.has_our_columns()
        }
    }

    fn has_our_columns(&self) -> bool {
        // SAFETY: the descriptor lives as long as the relation is open, and is not released here.
        let descriptor = unsafe { PgTupleDesc::from_pg_unchecked((*self.relation).rd_att) };
        EVENTS.has_columns_of(&descriptor)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The transaction ends with an error and closes the relation. A second error must not be raised here.
            return;
        }
        // SAFETY: open since `open`; the lock stays.
        unsafe { pg_sys::relation_close(self.relation, pg_sys::NoLock as i32) };
    }
}

/// The executor state of an INSERT into the chunk.
struct Writer {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    indexes: *mut pg_sys::ResultRelInfo,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    memory: PgMemoryContexts,
}

impl Writer {
    fn new(target: &Target) -> Self {
        // SAFETY: the same sequence as in COPY; everything is freed in `finish`, or at the end of the transaction.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let indexes = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*indexes).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(indexes, target.relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(indexes, false);
            let memory = PgMemoryContexts::new("tailstream rows");
            Self { relation: target.relation, state, indexes, slots: Vec::new(), memory }
        }
    }

    fn write(&mut self, rows: &Rows, range: Range<usize>, hints: &mut BlockHintBuilder) -> Result<()> {
        let mut row = EventRow::new();
        for start in range.clone().step_by(ROWS_PER_INSERT) {
            let part = start..range.end.min(start + ROWS_PER_INSERT);
            self.form(rows, part.clone(), &mut row)?;
            self.store(part.len(), hints);
        }
        Ok(())
    }

    /// Forms a tuple of each row in the slots.
    fn form(&mut self, rows: &Rows, part: Range<usize>, row: &mut EventRow) -> Result<()> {
        self.grow(part.len());
        // SAFETY: the values match the descriptor (`has_our_columns`); the memory lives until `store` is done.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.memory.value());
            let descriptor = (*self.relation).rd_att;
            let mut filled = Ok(());
            for (slot, index) in self.slots.iter().zip(part) {
                let (id, event) = rows.get(index);
                filled = row.fill(id, rows.stored.org, rows.stored.tier, event);
                if filled.is_err() {
                    break;
                }
                let tuple =
                    pg_sys::heap_form_tuple(descriptor, row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
                pg_sys::ExecStoreHeapTuple(tuple, *slot, false);
            }
            pg_sys::MemoryContextSwitchTo(previous);
            filled
        }
    }

    fn grow(&mut self, count: usize) {
        while self.slots.len() < count {
            // SAFETY: a slot for tuples of this relation.
            let slot = unsafe {
                pg_sys::MakeSingleTupleTableSlot((*self.relation).rd_att, &raw const pg_sys::TTSOpsHeapTuple)
            };
            self.slots.push(slot);
        }
    }

    /// Writes the first `count` slots to the heap and to every index.
    fn store(&mut self, count: usize, hints: &mut BlockHintBuilder) {
        // SAFETY: the slots hold tuples of this relation, and no index is deferred or speculative.
        unsafe {
            let command = pg_sys::GetCurrentCommandId(true);
            let previous = pg_sys::MemoryContextSwitchTo(self.memory.value());
            pg_sys::heap_multi_insert(
                self.relation,
                self.slots.as_mut_ptr(),
                count as i32,
                command,
                0,
                std::ptr::null_mut(),
            );
            pg_sys::MemoryContextSwitchTo(previous);
            for slot in &self.slots[..count] {
                hints.add((*self.relation).rd_id.to_u32(), item_pointer_get_both((**slot).tts_tid).0);
                self.index(*slot);
                pg_sys::ExecClearTuple(*slot);
            }
            self.memory.reset();
        }
    }

    unsafe fn index(&self, slot: *mut pg_sys::TupleTableSlot) {
        let none = std::ptr::null_mut();
        // SAFETY: the slot's tuple was just inserted into the heap.
        unsafe {
            #[cfg(feature = "pg15")]
            pg_sys::ExecInsertIndexTuples(self.indexes, slot, self.state, false, false, none, none.cast());
            #[cfg(not(feature = "pg15"))]
            pg_sys::ExecInsertIndexTuples(
                self.indexes,
                slot,
                self.state,
                false,
                false,
                none,
                none.cast(),
                false,
            );
            if !(*self.state).es_per_tuple_exprcontext.is_null() {
                pg_sys::MemoryContextReset((*(*self.state).es_per_tuple_exprcontext).ecxt_per_tuple_memory);
            }
        }
    }

    /// Frees the state. Not done in `Drop`: after an error the end of the transaction frees it, and must not raise another error.
    fn finish(self) {
        // SAFETY: made in `new` and `grow`, freed once.
        unsafe {
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::ExecCloseIndices(self.indexes);
            pg_sys::FreeExecutorState(self.state);
        }
    }
}
