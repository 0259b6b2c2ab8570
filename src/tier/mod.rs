//! Tiers and orgs: how long whose events are kept.

pub mod cache;
pub mod lookup;
pub mod retention;

use pgrx::pg_sys;

use crate::call::pg_function;
use crate::worker::commit;

/// Seconds between the Unix epoch and PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// Microseconds since the Unix epoch as PostgreSQL counts them; infinities stay far away.
pub fn to_postgres_time(unix: i64) -> i64 {
    unix.saturating_sub(POSTGRES_EPOCH_SECONDS * 1_000_000)
}

/// PostgreSQL's microseconds as microseconds since the Unix epoch.
pub fn to_unix_time(postgres: i64) -> i64 {
    postgres.saturating_add(POSTGRES_EPOCH_SECONDS * 1_000_000)
}

pg_function! {
    /// Statement trigger on tailstream.orgs and tailstream.tiers.
    fn invalidate_tier_cache_wrapper(fcinfo) -> Datum {
        // SAFETY: PostgreSQL passes a trigger's data as the context of the call.
        unsafe {
            let context = (*fcinfo).context;
            if pgrx::is_a(context, pg_sys::NodeTag::T_TriggerData) {
                let relation = (*context.cast::<pg_sys::TriggerData>()).tg_relation;
                cache::invalidate_everywhere((*relation).rd_id);
                commit::wake_mirror();
            }
            pg_sys::Datum::null()
        }
    }
}
