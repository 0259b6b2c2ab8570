//! SQL that is prepared once in a session and run many times.

pub mod raw;
pub mod snapshot;
pub mod subtransaction;
pub mod table;
pub mod time_window;

use std::cell::{Cell, OnceCell};
use std::mem::ManuallyDrop;

use pgrx::datum::DatumWithOid;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiHeapTupleData, SpiTupleTable};
use pgrx::{FromDatum, IntoDatum, PgBuiltInOids, PgOid, Spi, pg_sys};

use crate::error::{Error, Result, spi};

/// One statement; kept in a `thread_local!` of the module that runs it.
pub struct Statement {
    what: &'static str,
    sql: &'static str,
    arguments: &'static [PgBuiltInOids],
    /// Never freed: at exit, PostgreSQL is gone before a destructor runs.
    plan: OnceCell<ManuallyDrop<OwnedPreparedStatement>>,
}

impl Statement {
    /// `what` is what an error message says was being done.
    pub const fn new(what: &'static str, sql: &'static str, arguments: &'static [PgBuiltInOids]) -> Self {
        Self { what, sql, arguments, plan: OnceCell::new() }
    }

    /// Runs it as a statement that may write.
    pub fn run<'conn>(
        &self,
        client: &mut SpiClient<'conn>,
        arguments: &[DatumWithOid<'_>],
    ) -> Result<SpiTupleTable<'conn>> {
        client.update(&**self.plan(client)?, None, arguments).map_err(spi(self.what))
    }

    /// Runs it as a query, with a new snapshot of the transaction and without giving that an id. A statement is either
    /// run or read.
    pub fn read<'conn>(
        &self,
        client: &SpiClient<'conn>,
        arguments: &[DatumWithOid<'_>],
    ) -> Result<SpiTupleTable<'conn>> {
        let plan = match self.plan.get() {
            Some(plan) => plan,
            None => {
                let plan = client.prepare(self.sql, &self.types()).map_err(spi(self.what))?.keep();
                self.plan.get_or_init(|| ManuallyDrop::new(plan))
            }
        };
        snapshot::current(|| client.select(&**plan, None, arguments).map_err(spi(self.what)))
    }

    /// The first row of a query of bigints, NULLs as 0.
    pub fn first_numbers<const N: usize>(&self, arguments: &[DatumWithOid<'_>]) -> Result<Option<[i64; N]>> {
        Spi::connect(|client| {
            let table = self.read(client, arguments)?;
            if table.is_empty() {
                return Ok(None);
            }
            let row = table.first();
            let mut numbers = [0; N];
            for (column, number) in numbers.iter_mut().enumerate() {
                *number = row.get::<i64>(column + 1).map_err(spi(self.what))?.unwrap_or_default();
            }
            Ok(Some(numbers))
        })
    }

    fn types(&self) -> Vec<PgOid> {
        self.arguments.iter().copied().map(PgOid::from).collect()
    }

    fn plan(&self, client: &SpiClient<'_>) -> Result<&ManuallyDrop<OwnedPreparedStatement>> {
        if let Some(plan) = self.plan.get() {
            return Ok(plan);
        }
        let plan = client.prepare_mut(self.sql, &self.types()).map_err(spi(self.what))?.keep();
        Ok(self.plan.get_or_init(|| ManuallyDrop::new(plan)))
    }
}

/// An SPI argument.
pub fn arg<T: IntoDatum>(value: T) -> DatumWithOid<'static> {
    DatumWithOid::from(value)
}

/// A column of a row, which must not be NULL; `what` is what an error message says was being done.
pub fn column<T: FromDatum + IntoDatum>(
    row: &SpiHeapTupleData<'_>,
    number: usize,
    what: &'static str,
) -> Result<T> {
    row.get::<T>(number).map_err(spi(what))?.ok_or(Error::Internal("a NULL where a value has to be"))
}

/// A query that sees what is committed at the moment it runs, whatever the isolation level of the
/// transaction; pgrx's own queries cannot be given a snapshot. All arguments are text, timestamps, bigints
/// or oids, all results bigints or timestamps.
pub struct LatestQuery {
    sql: &'static core::ffi::CStr,
    arguments: &'static [PgBuiltInOids],
    plan: Cell<pg_sys::SPIPlanPtr>,
}

impl LatestQuery {
    pub const fn new(sql: &'static core::ffi::CStr, arguments: &'static [PgBuiltInOids]) -> Self {
        Self { sql, arguments, plan: Cell::new(std::ptr::null_mut()) }
    }

    /// The first row, NULLs as 0.
    pub fn first<const N: usize>(&self, arguments: &mut [pg_sys::Datum]) -> Result<Option<[i64; N]>> {
        Spi::connect_mut(|_| {
            let plan = self.plan()?;
            // SAFETY: the plan takes these arguments; the snapshot is registered while it is used.
            unsafe {
                let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
                let none = std::ptr::null_mut();
                let status = pg_sys::SPI_execute_snapshot(
                    plan,
                    arguments.as_mut_ptr(),
                    std::ptr::null(),
                    snapshot,
                    none,
                    true,
                    false,
                    1,
                );
                pg_sys::UnregisterSnapshot(snapshot);
                Spi::check_status(status).map_err(spi("querying what is committed"))?;
                Ok((pg_sys::SPI_processed > 0).then(|| first_row()))
            }
        })
    }

    fn plan(&self) -> Result<pg_sys::SPIPlanPtr> {
        if self.plan.get().is_null() {
            let mut types: Vec<pg_sys::Oid> = self.arguments.iter().map(|kind| kind.value()).collect();
            // SAFETY: inside an SPI connection; a kept plan lives as long as the process.
            unsafe {
                let plan = pg_sys::SPI_prepare(self.sql.as_ptr(), types.len() as i32, types.as_mut_ptr());
                if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                    return Err(Error::Internal("a query that cannot be prepared"));
                }
                self.plan.set(plan);
            }
        }
        Ok(self.plan.get())
    }
}

/// # Safety
/// Right after a query that returned a row of `N` bigints.
unsafe fn first_row<const N: usize>() -> [i64; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let table = &*pg_sys::SPI_tuptable;
        let row = *table.vals;
        std::array::from_fn(|column| {
            let mut null = false;
            let value = pg_sys::SPI_getbinval(row, table.tupdesc, column as i32 + 1, &mut null);
            if null { 0 } else { value.value() as i64 }
        })
    }
}
