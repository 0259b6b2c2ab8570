//! Rows as PostgreSQL holds them: for the one query whose every row counts.

use std::ffi::CString;
use std::marker::PhantomData;

use pgrx::{PgBuiltInOids, Spi, pg_sys, varlena};

use crate::error::{Error, Result, spi};

/// Columns of a row at the most.
const MAX_COLUMNS: usize = 16;

/// A plan that is kept until it is freed.
#[derive(Clone, Copy)]
pub struct RawPlan {
    plan: pg_sys::SPIPlanPtr,
}

impl RawPlan {
    /// Inside an SPI connection.
    pub fn new(sql: &str, arguments: &[PgBuiltInOids]) -> Result<Self> {
        let sql = CString::new(sql).map_err(|_| Error::Internal("a query with a NUL in it"))?;
        let mut types: Vec<pg_sys::Oid> = arguments.iter().map(|kind| kind.value()).collect();
        // SAFETY: inside an SPI connection, as the callers see to; as many types as there are.
        unsafe {
            let plan = pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr());
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                return Err(Error::Internal("a query that cannot be prepared"));
            }
            Ok(Self { plan })
        }
    }

    /// To be called once, for the last copy.
    pub fn free(self) {
        // SAFETY: a kept plan.
        unsafe { pg_sys::SPI_freeplan(self.plan) };
    }

    /// Calls `take` with every row until it returns false. Inside an SPI connection, with a snapshot: the query sees what that shows.
    /// `values` has one value for each argument, none NULL.
    pub fn each<const N: usize>(
        &self,
        mut values: [pg_sys::Datum; N],
        mut take: impl FnMut(RawRow<'_>) -> bool,
    ) -> Result<()> {
        // SAFETY: the plan takes these values; the rows live until the SPI connection ends or runs something else.
        unsafe {
            let status = pg_sys::SPI_execute_plan(self.plan, values.as_mut_ptr(), std::ptr::null(), true, 0);
            Spi::check_status(status).map_err(spi("reading rows"))?;
            let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed);
            let columns = (*(*table).tupdesc).natts as usize;
            if columns > MAX_COLUMNS {
                return Err(Error::Internal("more columns than a row has room for"));
            }
            for index in 0..count as usize {
                let mut row = RawRow::empty();
                let tuple = *(*table).vals.add(index);
                pg_sys::heap_deform_tuple(
                    tuple,
                    (*table).tupdesc,
                    row.values.as_mut_ptr(),
                    row.nulls.as_mut_ptr(),
                );
                if !take(row) {
                    break;
                }
            }
            pg_sys::SPI_freetuptable(table);
            Ok(())
        }
    }
}

/// The columns of one row, counted from 0. Whoever asks for one knows its type.
pub struct RawRow<'a> {
    values: [pg_sys::Datum; MAX_COLUMNS],
    nulls: [bool; MAX_COLUMNS],
    of: PhantomData<&'a ()>,
}

impl RawRow<'_> {
    /// All columns NULL.
    pub fn empty() -> Self {
        Self { values: [pg_sys::Datum::null(); MAX_COLUMNS], nulls: [true; MAX_COLUMNS], of: PhantomData }
    }

    /// Sets a column that is not NULL.
    ///
    /// # Safety
    /// The value must live as long as the row.
    pub unsafe fn set(&mut self, column: usize, value: pg_sys::Datum) {
        self.values[column] = value;
        self.nulls[column] = false;
    }

    /// `None` for NULL.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[column]).then_some(self.values[column])
    }

    pub fn int4(&self, column: usize) -> Option<i32> {
        self.datum(column).map(|value| value.value() as i32)
    }

    /// A bigint or a timestamp.
    pub fn int8(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|value| value.value() as i64)
    }

    pub fn text(&self, column: usize) -> Option<&str> {
        // SAFETY: a text; a compressed or external one is unfolded into memory of the running query.
        self.datum(column).map(|value| unsafe {
            let plain = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
            varlena::text_to_rust_str_unchecked(plain)
        })
    }
}
