//! Transactions that others see as committed and that are not over yet.
//!
//! A commit first takes the transaction off the list that snapshots are made from, then tells other processes what
//! it changed in the catalogs, and last releases its locks. In between, its rows are visible, but a process may not
//! know of a chunk that it made, and not find the rows in it. Who looks once must not look then. So a transaction counts
//! as over when it has released its locks, the one on its own id among them.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::horizon::Snapshot;
use crate::error::{Result, spi};

/// Beyond so many ids the list of all locks is looked at instead.
const MAX_PROBES: u64 = 256;

/// The transactions that `now` counts as over and `seen` did not, and that hold their lock still, in ascending order.
/// Afterwards this process knows what the others changed.
pub fn among_new(seen: &Snapshot, now: &Snapshot) -> Result<Vec<u64>> {
    let was_running = seen.running.iter().copied().filter(|xid| now.sees(*xid));
    let new = seen.xmax..now.xmax;
    let mut found: Vec<u64> = if now.xmax.saturating_sub(seen.xmax) <= MAX_PROBES {
        was_running.chain(new.filter(|xid| now.sees(*xid))).filter(|xid| is_finishing(*xid)).collect()
    } else {
        let locked = locked()?;
        let is_locked = |xid: &u64| locked.contains(&(*xid as u32));
        let candidates: Vec<u64> = was_running.filter(is_locked).collect();
        let new =
            locked.iter().map(|xid| full(*xid, now.xmax)).filter(|xid| new.contains(xid) && now.sees(*xid));
        candidates.into_iter().chain(new).filter(|xid| is_finishing(*xid)).collect()
    };
    found.sort_unstable();
    found.dedup();
    // SAFETY: between statements of a transaction, where PostgreSQL does it for every lock it takes.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    Ok(found)
}

/// Whether the transaction has committed and holds the lock on its id. Aborted ones and subtransactions of
/// running ones do not matter.
fn is_finishing(xid: u64) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: xid as u32,
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: as PostgreSQL itself waits for a transaction, but without waiting. The status of a transaction that holds
    // a lock is always there to be read.
    unsafe {
        let share = pg_sys::ShareLock as i32;
        if pg_sys::LockAcquire(&tag, share, false, true) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            pg_sys::LockRelease(&tag, share, false);
            return false;
        }
        pg_sys::TransactionIdDidCommit(pg_sys::TransactionId::from(xid as u32))
    }
}

/// The ids that are locked by their own transactions.
fn locked() -> Result<Vec<u32>> {
    let sql = "SELECT transactionid::text::bigint FROM pg_catalog.pg_locks
               WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted";
    Spi::connect(|client| {
        let rows = client.select(sql, None, &[]).map_err(spi("reading locks"))?;
        rows.map(|row| Ok(row.get::<i64>(1).map_err(spi("reading locks"))?.unwrap_or_default() as u32))
            .collect()
    })
}

/// The id with its epoch; it is smaller than `next`, and not by a whole round.
pub fn full(xid: u32, next: u64) -> u64 {
    let behind = (next as u32).wrapping_sub(xid);
    next.wrapping_sub(u64::from(behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gets_the_epoch_that_it_was_given_in() {
        assert_eq!(full(7, 10), 7);
        let wrapped = (3 << 32) + 5;
        assert_eq!(full(4, wrapped), (3 << 32) + 4);
        assert_eq!(full(u32::MAX, wrapped), (3 << 32) - 1);
    }
}
