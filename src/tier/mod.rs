//! Tiers and orgs: how long the events of each org are kept.

pub mod cache;
pub mod lookup;
pub mod retention;

use pgrx::pg_sys;

use crate::pg::function::pg_function;
use crate::worker::transaction_callbacks;

pg_function! {
    /// Statement trigger on tailstream.orgs and tailstream.tiers.
    fn invalidate_tier_cache_wrapper(fcinfo) -> Datum {
        // SAFETY: PostgreSQL passes a trigger's data as the context of the call.
        unsafe {
            let context = (*fcinfo).context;
            if pgrx::is_a(context, pg_sys::NodeTag::T_TriggerData) {
                let relation = (*context.cast::<pg_sys::TriggerData>()).tg_relation;
                cache::invalidate_everywhere((*relation).rd_id);
                transaction_callbacks::wake_mirror();
            }
            pg_sys::Datum::null()
        }
    }
}
