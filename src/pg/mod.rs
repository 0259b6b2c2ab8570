//! Access to PostgreSQL that knows nothing of events: times, catalog look-ups, relation cache invalidations.

pub mod catalog;
pub mod relcache;
pub mod time;
