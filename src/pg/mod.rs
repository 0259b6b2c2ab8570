//! Access to PostgreSQL. Nothing in here knows what is stored.
//!
//! There are three ways to run SQL or read a table:
//!
//! - [`statement::Statement`] for everything that writes, and for queries that return few rows.
//! - [`streaming::StreamingStatement`] for queries that return many rows or must choose their snapshot. Where the text of the
//!   query varies, `StreamingPlan` and `PlanCache` are used directly, or `time_window` for queries of a hypertable.
//! - [`table_scan`] for small tables that are read without privileges or during planning, where no query can run.

pub mod catalog;
pub mod function;
pub mod object_lock;
pub mod relcache;
pub mod snapshot;
pub mod statement;
pub mod streaming;
pub mod subtransaction;
pub mod table_scan;
pub mod time;
pub mod time_window;
pub mod utility_hook;
