//! What talks to PostgreSQL and knows nothing of events: times, catalog look-ups and news of changed relations.

pub mod catalog;
pub mod relcache;
pub mod time;
