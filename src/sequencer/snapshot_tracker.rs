//! Tracks which rows of the ledger the sequencer has read, and finds the new ones.
//!
//! A poll reads what its snapshot sees. New rows are those that the previous poll's snapshot did not see: rows of
//! transactions that began after it, and rows of transactions that were running then. No other row can have become
//! visible in between. (PgQ's ticks follow the same rule.) The sequencer waits for no transaction: one that runs for
//! hours costs one number in a list.
//!
//! A poll returns at most `limit` rows. If it stops in the middle of a transaction, it stores the last batch it read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Which transactions count as completed, in the form of `pg_snapshot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The first transaction id that was not assigned yet.
    pub xmax: u64,
    /// Smaller ids of transactions that were running, in ascending order.
    pub running: Vec<u64>,
}

impl Snapshot {
    /// Whether a transaction was completed.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// Counts these transactions as completed, too.
    pub fn with(mut self, over: &[u64]) -> Self {
        self.running.retain(|xid| !over.contains(xid));
        self
    }

    /// Counts these transactions as running, too.
    pub fn without(mut self, unfinished: &[u64]) -> Self {
        self.running.extend(unfinished);
        self.running.sort_unstable();
        self
    }
}

impl FromStr for Snapshot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or(());
        let (_xmin, xmax, running) = (next()?, next()?, next()?);
        let numbers = running.split(',').filter(|number| !number.is_empty());
        let running = numbers.map(str::parse).collect::<Result<Vec<u64>, _>>().map_err(drop)?;
        Ok(Self { xmax: xmax.parse().map_err(drop)?, running })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let xmin = self.running.first().copied().unwrap_or(self.xmax);
        let running: Vec<String> = self.running.iter().map(u64::to_string).collect();
        write!(out, "{xmin}:{}:{}", self.xmax, running.join(","))
    }
}

/// The sort key of a row of the ledger.
pub trait Sequenced {
    /// Transaction and batch.
    fn key(&self) -> (u64, i64);
}

/// The visible rows of the ledger, ordered by transaction and batch.
pub trait Ledger {
    type Row: Sequenced;
    type Error;

    /// The rows of one transaction after a batch.
    fn of(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Self::Row>, Self::Error>;

    /// The rows of this transaction after a batch, and the rows of all later transactions.
    fn from(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Self::Row>, Self::Error>;
}

/// The rows that the sequencer has read so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTracker {
    seen: Snapshot,
    /// Transactions that are read in part: the last batch read of each. They do not count as seen.
    partial: BTreeMap<u64, i64>,
}

impl SnapshotTracker {
    pub fn new(seen: Snapshot, partial: &str) -> Result<Self, ()> {
        let parse = |part: &str| -> Option<(u64, i64)> {
            let (xid, batch) = part.split_once('/')?;
            Some((xid.parse().ok()?, batch.parse().ok()?))
        };
        let partial =
            partial.split_ascii_whitespace().map(|part| parse(part).ok_or(())).collect::<Result<_, ()>>()?;
        Ok(Self { seen, partial })
    }

    pub fn seen(&self) -> &Snapshot {
        &self.seen
    }

    /// The smallest transaction id that is not seen, or seen only in part.
    pub fn first_unseen(&self) -> u64 {
        self.seen.running.iter().copied().fold(self.seen.xmax, u64::min)
    }

    /// The partly read transactions in the form that `new` takes; `None` if there are none.
    pub fn partial(&self) -> Option<String> {
        let parts: Vec<String> = self.partial.iter().map(|(xid, batch)| format!("{xid}/{batch}")).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// Returns the new rows in order, at most `limit`, and whether these are all new rows.
    /// `now` is the snapshot that reads the ledger's rows. Rows of transactions that `now` counts as running are left to
    /// a later poll, whether they are visible or not.
    pub fn poll<L: Ledger>(
        &mut self,
        now: &Snapshot,
        limit: usize,
        ledger: &mut L,
    ) -> Result<(Vec<L::Row>, bool), L::Error> {
        let mut rows = Vec::new();
        let over: Vec<u64> = self.seen.running.iter().copied().filter(|xid| now.sees(*xid)).collect();
        for xid in over {
            let room = limit - rows.len();
            let found = ledger.of(xid, self.seen_of(xid), room)?;
            let stopped = found.len() == room;
            rows.extend(found);
            if stopped {
                self.stop_in(rows.last());
                return Ok((rows, false));
            }
            self.partial.remove(&xid);
            self.seen.running.retain(|other| *other != xid);
        }
        let room = limit - rows.len();
        let found = ledger.from(self.seen.xmax, self.seen_of(self.seen.xmax), room)?;
        let stopped = found.len() == room;
        let last = found.last().map(Sequenced::key);
        rows.extend(found.into_iter().filter(|row| now.sees(row.key().0)));
        if stopped {
            self.advance_to(last, now);
            return Ok((rows, false));
        }
        self.partial.remove(&self.seen.xmax);
        self.seen = now.clone();
        Ok((rows, true))
    }

    fn seen_of(&self, xid: u64) -> i64 {
        self.partial.get(&xid).copied().unwrap_or(i64::MIN)
    }

    fn stop_in(&mut self, last: Option<&impl Sequenced>) {
        if let Some((xid, batch)) = last.map(Sequenced::key) {
            self.partial.insert(xid, batch);
        }
    }

    /// Counts everything before the transaction of the last row as seen, except transactions that are running now.
    fn advance_to(&mut self, last: Option<(u64, i64)>, now: &Snapshot) {
        let Some((xid, batch)) = last else { return };
        let first = self.seen.xmax;
        self.partial.remove(&first);
        self.seen.running.extend(now.running.iter().filter(|other| (first..xid).contains(other)));
        self.seen.xmax = xid;
        if now.sees(xid) {
            self.partial.insert(xid, batch);
        }
    }
}

#[cfg(test)]
mod tests;
