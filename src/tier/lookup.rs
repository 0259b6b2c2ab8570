//! Reads tiers and orgs with table scans: the caller needs no privileges on the tables, and it works while a query is planned.

use pgrx::{IntoDatum, pg_sys};

use super::retention;
use crate::error::{Error, Result};
use crate::pg::catalog;
use crate::pg::table_scan::{self, ScanKey};

/// The values of a tier that ingest and replay use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    pub id: i16,
    /// Microseconds.
    pub retention: i64,
    /// Earlier events may have been purged while the retention was shorter: PostgreSQL's microseconds.
    pub lost_before: i64,
}

/// The values of an org that replay uses.
#[derive(Debug, Clone, Copy)]
pub struct OrgRow {
    pub tier: i16,
    /// PostgreSQL's microseconds.
    pub registered_at: i64,
    pub lost_before: i64,
}

/// The oids of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    pub orgs: pg_sys::Oid,
    orgs_key: pg_sys::Oid,
    pub tiers: pg_sys::Oid,
}

impl Tables {
    /// Finds the tables. Error if they are missing or not attached.
    pub fn find() -> Result<Self> {
        let schema = catalog::schema()?;
        let orgs = catalog::relation(schema, c"orgs")?;
        // SAFETY: a catalog look-up by name.
        let watched = unsafe { pg_sys::get_trigger_oid(orgs, c"tailstream_invalidate_cache".as_ptr(), true) };
        if watched == pg_sys::InvalidOid {
            // A restored dump created the tables, and changes would not be announced without the trigger.
            return Err(Error::StorageMissing);
        }
        Ok(Self {
            orgs,
            orgs_key: catalog::relation(schema, c"orgs_pkey")?,
            tiers: catalog::relation(schema, c"tiers")?,
        })
    }

    /// `None` if the org is not registered.
    pub fn org(&self, org: &str) -> Option<OrgRow> {
        let mut found = None;
        let key = org.into_datum()?;
        table_scan::scan_index(self.orgs, self.orgs_key, &[ScanKey::text(1, key)], |row| {
            // A timestamptz is a number of microseconds.
            let lost_before = row.value::<i64>(8).unwrap_or(i64::MIN);
            let known = row.value::<i16>(2).zip(row.value::<i64>(3));
            found = known.map(|(tier, registered_at)| OrgRow { tier, registered_at, lost_before });
        });
        found
    }

    /// All tiers, and the default one.
    pub fn tiers(&self) -> (Vec<Tier>, Option<Tier>) {
        let (mut tiers, mut default) = (Vec::new(), None);
        table_scan::scan(self.tiers, |row| {
            let (Some(id), Some(name), Some(kept)) =
                (row.value::<i16>(1), row.value::<String>(2), row.value::<pgrx::datum::Interval>(3))
            else {
                return;
            };
            let tier = Tier {
                id,
                retention: retention::microseconds(kept.days(), kept.micros()),
                lost_before: row.value::<i64>(6).unwrap_or(i64::MIN),
            };
            if name == "standard" {
                default = Some(tier);
            }
            tiers.push(tier);
        });
        (tiers, default)
    }
}

/// Error unless the extension is installed in this database and its tables are attached, which they are not while a dump is
/// being restored.
pub fn in_use() -> Result<()> {
    // SAFETY: a catalog look-up by name.
    let extension = unsafe { pg_sys::get_extension_oid(c"tailstream".as_ptr(), true) };
    if extension == pg_sys::InvalidOid { Err(Error::StorageMissing) } else { Tables::find().map(drop) }
}

/// The table of positions, if it is attached.
pub fn positions() -> Result<pg_sys::Oid> {
    in_use()?;
    catalog::relation(catalog::schema()?, c"positions")
}

/// Reads the key that seals tokens.
pub fn token_key(table: pg_sys::Oid) -> Result<Vec<u8>> {
    let mut key = None;
    table_scan::scan(table, |row| key = row.value::<Vec<u8>>(2));
    key.ok_or(Error::Internal("no key for tokens"))
}
