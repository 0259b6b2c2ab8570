//! Statements that are prepared once in a session and run many times.

use std::cell::OnceCell;
use std::mem::ManuallyDrop;

use pgrx::datum::DatumWithOid;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiHeapTupleData, SpiTupleTable};
use pgrx::{FromDatum, IntoDatum, PgBuiltInOids, PgOid, Spi};

use super::snapshot;
use crate::error::{Error, Result, spi};

/// A prepared statement. Declare it in a `thread_local!` of the module that runs it.
pub struct Statement {
    what: &'static str,
    sql: &'static str,
    arguments: &'static [PgBuiltInOids],
    /// Never freed: at exit, PostgreSQL is gone before a destructor runs.
    plan: OnceCell<ManuallyDrop<OwnedPreparedStatement>>,
}

impl Statement {
    /// `what` names the operation in error messages.
    pub const fn new(what: &'static str, sql: &'static str, arguments: &'static [PgBuiltInOids]) -> Self {
        Self { what, sql, arguments, plan: OnceCell::new() }
    }

    /// Runs the statement; it may write.
    pub fn run<'conn>(
        &self,
        client: &mut SpiClient<'conn>,
        arguments: &[DatumWithOid<'_>],
    ) -> Result<SpiTupleTable<'conn>> {
        client.update(&**self.plan(client)?, None, arguments).map_err(spi(self.what))
    }

    /// Runs the statement as a query under a new transaction snapshot, without assigning a transaction id. Call either `run`
    /// or `read` on one statement, never both: the kept plan is prepared for one of them.
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

    /// The first row of a query that returns bigints; NULL is returned as 0.
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

/// A column that must not be NULL. `what` names the operation in error messages.
pub fn column<T: FromDatum + IntoDatum>(
    row: &SpiHeapTupleData<'_>,
    number: usize,
    what: &'static str,
) -> Result<T> {
    row.get::<T>(number).map_err(spi(what))?.ok_or(Error::Internal("a NULL where a value has to be"))
}
