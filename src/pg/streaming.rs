//! Queries that pass each row on as the executor returns it, without copying it into an SPI tuple table.
//!
//! For queries that return many rows, that choose their snapshot, or whose plan must be made for each call.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::hash::Hash;
use std::marker::PhantomData;

use pgrx::{PgBuiltInOids, Spi, pg_guard, pg_sys, varlena};

use super::snapshot;
use crate::error::{Error, Result, spi};

/// Default capacity of a plan cache.
const MAX_PLANS: usize = 256;

/// When a statement is planned; the names are those of PostgreSQL's `plan_cache_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanCacheMode {
    /// PostgreSQL chooses between the other two.
    Auto,
    /// On each call, for its values: only the chunks that match them are planned and locked.
    Custom,
    /// Once, for any values.
    Generic,
}

/// Which snapshot a statement runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// The active snapshot.
    ActiveSnapshot,
    /// A new transaction snapshot, taken after the statement has acquired its locks.
    NewSnapshot,
}

/// A saved SPI plan. It lives until `free` is called.
#[derive(Clone, Copy)]
pub struct StreamingPlan {
    plan: pg_sys::SPIPlanPtr,
    arguments: &'static [PgBuiltInOids],
}

impl StreamingPlan {
    /// Prepares and saves the plan. Must be called inside an SPI connection.
    pub fn new(sql: &str, arguments: &'static [PgBuiltInOids], planning: PlanCacheMode) -> Result<Self> {
        let sql = CString::new(sql).map_err(|_| Error::Internal("a query with a NUL in it"))?;
        let mut types: Vec<pg_sys::Oid> = arguments.iter().map(|kind| kind.value()).collect();
        // SAFETY: inside an SPI connection, as the callers see to; as many types as there are.
        unsafe {
            let options = match planning {
                PlanCacheMode::Auto => 0,
                PlanCacheMode::Custom => pg_sys::CURSOR_OPT_CUSTOM_PLAN as i32,
                PlanCacheMode::Generic => pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            };
            let plan =
                pg_sys::SPI_prepare_cursor(sql.as_ptr(), types.len() as i32, types.as_mut_ptr(), options);
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                return Err(Error::Internal("a query that cannot be prepared"));
            }
            Ok(Self { plan, arguments })
        }
    }

    /// Frees the plan. No copy may be used afterwards.
    pub fn free(self) {
        // SAFETY: a kept plan.
        unsafe { pg_sys::SPI_freeplan(self.plan) };
    }

    /// Calls `take` with each row until it returns false. Must be called inside an SPI connection; `Visibility::ActiveSnapshot`
    /// needs an active snapshot. `values` has one value for each argument.
    pub fn each<const N: usize>(
        &self,
        values: [Option<pg_sys::Datum>; N],
        visibility: Visibility,
        mut take: impl FnMut(SlotRow<'_>) -> bool,
    ) -> Result<()> {
        let mut receiver = Receiver {
            base: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(started),
                rShutdown: Some(ended),
                rDestroy: Some(ended),
                mydest: pg_sys::CommandDest::DestNone,
            },
            take: &mut take,
        };
        // SAFETY: the plan takes these values; the receiver lives through the call.
        unsafe {
            let options = pg_sys::SPIExecuteOptions {
                params: self.parameters(&values),
                read_only: visibility == Visibility::ActiveSnapshot,
                dest: (&raw mut receiver).cast(),
                ..Default::default()
            };
            let status = pg_sys::SPI_execute_plan_extended(self.plan, &options);
            Spi::check_status(status).map_err(spi("reading rows"))?;
        }
        Ok(())
    }

    /// # Safety
    /// The values must be of the plan's types.
    unsafe fn parameters(&self, values: &[Option<pg_sys::Datum>]) -> pg_sys::ParamListInfo {
        // SAFETY: the list has room for as many as it is made for.
        unsafe {
            let list = pg_sys::makeParamList(values.len() as i32);
            let places = (*list).params.as_mut_slice(values.len());
            for ((place, value), kind) in places.iter_mut().zip(values).zip(self.arguments) {
                place.value = value.unwrap_or(pg_sys::Datum::null());
                place.isnull = value.is_none();
                place.pflags = pg_sys::PARAM_FLAG_CONST as u16;
                place.ptype = kind.value();
            }
            list
        }
    }
}

/// A streaming query that is prepared once. Declare it in a `thread_local!` of the module that runs it.
pub struct StreamingStatement {
    sql: &'static str,
    arguments: &'static [PgBuiltInOids],
    plan: Cell<Option<StreamingPlan>>,
}

impl StreamingStatement {
    pub const fn new(sql: &'static str, arguments: &'static [PgBuiltInOids]) -> Self {
        Self { sql, arguments, plan: Cell::new(None) }
    }

    /// See `StreamingPlan::each`.
    pub fn each<const N: usize>(
        &self,
        values: [Option<pg_sys::Datum>; N],
        visibility: Visibility,
        take: impl FnMut(SlotRow<'_>) -> bool,
    ) -> Result<()> {
        Spi::connect_mut(|_| {
            let plan = match self.plan.get() {
                Some(plan) => plan,
                None => StreamingPlan::new(self.sql, self.arguments, PlanCacheMode::Auto)?,
            };
            self.plan.set(Some(plan));
            plan.each(values, visibility, take)
        })
    }

    /// The first row of a query that returns bigints or timestamps; NULL is returned as 0. The query sees everything that is
    /// committed when it runs, under any isolation level.
    pub fn first_committed<const M: usize, const N: usize>(
        &self,
        values: [pg_sys::Datum; M],
    ) -> Result<Option<[i64; N]>> {
        let mut first = None;
        snapshot::latest(|| {
            self.each(values.map(Some), Visibility::ActiveSnapshot, |row| {
                first = Some(std::array::from_fn(|column| row.int8(column).unwrap_or_default()));
                false
            })
        })?;
        Ok(first)
    }
}

/// Receives each row from the executor, without a copy.
#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    take: &'a mut dyn FnMut(SlotRow<'_>) -> bool,
}

#[pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: the executor passes the receiver of `each`; the slot holds a row until this returns.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver<'_>>();
        (receiver.take)(SlotRow::of(slot, None))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn started(
    _receiver: *mut pg_sys::DestReceiver,
    _operation: core::ffi::c_int,
    _descriptor: pg_sys::TupleDesc,
) {
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(_receiver: *mut pg_sys::DestReceiver) {}

/// The saved plans of a session by key.
pub struct PlanCache<K> {
    plans: RefCell<HashMap<K, StreamingPlan>>,
    most: usize,
}

impl<K> Default for PlanCache<K> {
    fn default() -> Self {
        Self::at_most(MAX_PLANS)
    }
}

impl<K> PlanCache<K> {
    /// When the cache is full, all of its plans are freed.
    pub fn at_most(most: usize) -> Self {
        Self { plans: RefCell::default(), most }
    }
}

impl<K: Eq + Hash> PlanCache<K> {
    /// Returns the plan of this key, and makes it if it is missing.
    pub fn get<Q>(&self, key: &Q, make: impl FnOnce(&Q) -> Result<StreamingPlan>) -> Result<StreamingPlan>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(plan) = self.plans.borrow().get(key) {
            return Ok(*plan);
        }
        let plan = make(key)?;
        let mut plans = self.plans.borrow_mut();
        if plans.len() >= self.most {
            plans.drain().for_each(|(_, plan)| plan.free());
        }
        plans.insert(key.to_owned(), plan);
        Ok(plan)
    }
}

/// Leading columns that are deformed separately. Access to a later column deforms the whole row at once.
const FIRST_COLUMNS: usize = 2;

/// A row in a tuple table slot. Columns are counted from 0; the caller knows their types.
pub struct SlotRow<'a> {
    slot: *mut pg_sys::TupleTableSlot,
    places: Option<&'a [usize]>,
    of: PhantomData<&'a ()>,
}

impl<'a> SlotRow<'a> {
    /// The row that the slot holds. `places` maps columns to attributes if their order differs.
    ///
    /// # Safety
    /// The slot must hold a row with these columns as long as this is used.
    pub unsafe fn of(slot: *mut pg_sys::TupleTableSlot, places: Option<&'a [usize]>) -> Self {
        Self { slot, places, of: PhantomData }
    }

    /// `None` for NULL.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        let place = self.places.map_or(column, |places| places[column]);
        // SAFETY: the slot has a row with this column.
        unsafe {
            if usize::from((*self.slot).tts_nvalid.unsigned_abs()) <= place {
                let all = (*(*self.slot).tts_tupleDescriptor).natts;
                let wanted = if place < FIRST_COLUMNS { all.min(FIRST_COLUMNS as i32) } else { all };
                pg_sys::slot_getsomeattrs_int(self.slot, wanted);
            }
            (!*(*self.slot).tts_isnull.add(place)).then(|| *(*self.slot).tts_values.add(place))
        }
    }

    /// The tuple and its descriptor, if the slot holds a tuple in a buffer.
    pub fn stored(&self) -> Option<(pg_sys::HeapTuple, pg_sys::TupleDesc)> {
        // SAFETY: a slot of that kind is a struct of that kind; an empty one has no tuple.
        unsafe {
            let stored = (*self.slot).tts_ops == &raw const pg_sys::TTSOpsBufferHeapTuple;
            let tuple = stored.then(|| (*self.slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tuple)?;
            (!tuple.is_null()).then(|| (tuple, (*self.slot).tts_tupleDescriptor))
        }
    }

    pub fn int4(&self, column: usize) -> Option<i32> {
        self.datum(column).map(|value| value.value() as i32)
    }

    /// A bigint or a timestamp.
    pub fn int8(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|value| value.value() as i64)
    }

    pub fn text(&self, column: usize) -> Option<&str> {
        // SAFETY: a text.
        self.datum(column).map(|value| unsafe { varlena::text_to_rust_str_unchecked(detoasted(value)) })
    }
}

/// Returns the value itself, or its decompressed or fetched copy in memory of the running query.
///
/// # Safety
/// The value must be of variable length, and not NULL.
pub unsafe fn detoasted(value: pg_sys::Datum) -> *mut pg_sys::varlena {
    let stored = value.cast_mut_ptr();
    // SAFETY: the caller's promise.
    unsafe {
        // Most values are plain. PostgreSQL's function is behind pgrx's guard, which costs more than reading the value.
        let is_plain = varlena::varatt_is_4b_u(stored)
            || varlena::varatt_is_1b(stored) && !varlena::varatt_is_1b_e(stored);
        if is_plain { stored } else { pg_sys::pg_detoast_datum_packed(stored) }
    }
}
