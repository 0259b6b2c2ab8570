//! SQL that is prepared once in a session and run many times.

use std::cell::OnceCell;

use pgrx::datum::DatumWithOid;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiTupleTable};
use pgrx::{PgBuiltInOids, PgOid};

use crate::error::{Result, spi};

/// One statement; kept in a `thread_local!` of the module that runs it.
pub struct Statement {
    what: &'static str,
    sql: &'static str,
    arguments: &'static [PgBuiltInOids],
    plan: OnceCell<OwnedPreparedStatement>,
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
        client.update(self.plan(client)?, None, arguments).map_err(spi(self.what))
    }

    /// Runs it as a query, under the snapshot that is active.
    pub fn read<'conn>(
        &self,
        client: &SpiClient<'conn>,
        arguments: &[DatumWithOid<'_>],
    ) -> Result<SpiTupleTable<'conn>> {
        client.select(self.plan(client)?, None, arguments).map_err(spi(self.what))
    }

    fn plan(&self, client: &SpiClient<'_>) -> Result<&OwnedPreparedStatement> {
        if let Some(plan) = self.plan.get() {
            return Ok(plan);
        }
        let types: Vec<PgOid> = self.arguments.iter().copied().map(PgOid::from).collect();
        let plan = client.prepare_mut(self.sql, &types).map_err(spi(self.what))?.keep();
        Ok(self.plan.get_or_init(|| plan))
    }
}
