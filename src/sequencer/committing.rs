//! Committing transactions: other sessions see them as committed, but they still hold their locks.
//!
//! A commit first removes the transaction from the list of running transactions that snapshots are made from, then
//! sends its catalog invalidations to other processes, and finally releases its locks. In between, its rows are visible,
//! but another process may not know of a chunk that the transaction created, and does not find the rows in it. The
//! sequencer reads each transaction once, so it must not read it at that time. A transaction therefore counts as
//! completed when it has released its locks, including the lock on its own id.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::snapshot_tracker::Snapshot;
use crate::error::{Result, spi};

/// For more ids than this, the list of all locks is read instead of one lock for each id.
const MAX_PROBES: u64 = 256;

/// Returns the transactions that `now` counts as completed, that `seen` did not, and that still hold their lock, in
/// ascending order. It also processes pending invalidations, so this process knows the catalog changes of the others.
pub fn among_new(seen: &Snapshot, now: &Snapshot) -> Result<Vec<u64>> {
    let was_running = seen.running.iter().copied().filter(|xid| now.sees(*xid));
    let new = seen.xmax..now.xmax;
    let mut found: Vec<u64> = if now.xmax.saturating_sub(seen.xmax) <= MAX_PROBES {
        was_running.chain(new.filter(|xid| now.sees(*xid))).filter(|xid| is_committing(*xid)).collect()
    } else {
        let locked = locked()?;
        let is_locked = |xid: &u64| locked.contains(&(*xid as u32));
        let candidates: Vec<u64> = was_running.filter(is_locked).collect();
        let new =
            locked.iter().map(|xid| full(*xid, now.xmax)).filter(|xid| new.contains(xid) && now.sees(*xid));
        candidates.into_iter().chain(new).filter(|xid| is_committing(*xid)).collect()
    };
    found.sort_unstable();
    found.dedup();
    // SAFETY: between statements of a transaction, where PostgreSQL does it for every lock it takes.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    Ok(found)
}

/// Whether the transaction has committed and still holds the lock on its id. Aborted transactions and
/// subtransactions of running transactions do not matter.
fn is_committing(xid: u64) -> bool {
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

/// Adds the epoch to an id. The id is smaller than `next` by less than 2^32.
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
