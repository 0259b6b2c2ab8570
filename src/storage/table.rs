//! Table descriptors: the name of a table and the columns that it must have.
//!
//! The direct write path and the block reader work on the heap itself, so they first compare a relation with its descriptor.

use core::ffi::CStr;

use pgrx::{PgTupleDesc, pg_sys};

use crate::error::Result;
use crate::pg::catalog;

/// A column of a table.
pub struct Column {
    pub name: &'static CStr,
    kind: pg_sys::Oid,
    not_null: bool,
}

impl Column {
    /// A column of this type.
    pub const fn new(name: &'static CStr, kind: pg_sys::Oid, not_null: bool) -> Self {
        Self { name, kind, not_null }
    }

    /// Whether an attribute of a relation is this column.
    pub fn is(&self, attribute: &pg_sys::FormData_pg_attribute) -> bool {
        attribute.atttypid == self.kind
            && !attribute.attisdropped
            && attribute.attnotnull == self.not_null
            && attribute.name().as_bytes() == self.name.to_bytes()
    }
}

/// A table of our schema.
pub struct Table {
    pub name: &'static CStr,
    /// All columns, in their order.
    pub columns: &'static [Column],
}

impl Table {
    /// The table's oid; error if the table is missing.
    pub fn relation(&self) -> Result<pg_sys::Oid> {
        catalog::relation(catalog::schema()?, self.name)
    }

    /// Whether a relation has exactly these columns in this order, none of them generated.
    pub fn has_columns_of(&self, descriptor: &PgTupleDesc<'_>) -> bool {
        descriptor.len() == self.columns.len()
            && descriptor
                .iter()
                .zip(self.columns)
                .all(|(attribute, column)| column.is(attribute) && attribute.attgenerated == 0)
    }

    /// The index of each column among a relation's attributes; `None` if any column is missing.
    pub fn attributes_in(&self, descriptor: &PgTupleDesc<'_>) -> Option<Vec<usize>> {
        self.columns
            .iter()
            .map(|column| descriptor.iter().position(|attribute| column.is(attribute)))
            .collect()
    }

    /// The columns in their order, as a query lists them.
    pub fn column_names(&self) -> String {
        self.columns.iter().map(|column| column.name.to_string_lossy()).collect::<Vec<_>>().join(", ")
    }
}
