//! What the sequencer has seen of the ledger, and which rows are new.
//!
//! A look sees what its snapshot sees. Of that, new is what the last look had not seen: rows of transactions that
//! began after it, and of those that were running then. Nothing else can have become visible meanwhile. (The rule
//! is that of PgQ's ticks.) Nobody is waited for: a transaction that runs for hours is one number in a list.
//!
//! A look may take no more than so many rows; then it remembers how far it came in the transaction it stopped in.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Which transactions count as over, as `pg_snapshot` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every id from here on was still to be given.
    pub xmax: u64,
    /// Smaller ids whose transactions were running, in ascending order.
    pub running: Vec<u64>,
}

impl Snapshot {
    /// Whether a transaction was over.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// Counts these as over, too.
    pub fn with(mut self, over: &[u64]) -> Self {
        self.running.retain(|xid| !over.contains(xid));
        self
    }

    /// Counts these as running, too.
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

/// A row of the ledger, as far as its order goes.
pub trait Placed {
    /// Transaction and batch.
    fn key(&self) -> (u64, i64);
}

/// The visible rows of the ledger, ordered by transaction and batch.
pub trait Ledger {
    type Row: Placed;
    type Error;

    /// Those of one transaction behind a batch.
    fn of(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Self::Row>, Self::Error>;

    /// Those of this transaction behind a batch, and of all later ones.
    fn from(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Self::Row>, Self::Error>;
}

/// How far the sequencer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    seen: Snapshot,
    /// Transactions not counted as seen of which a part is: up to this batch.
    partial: BTreeMap<u64, i64>,
}

impl Horizon {
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

    /// The smallest transaction id that is not seen, or not all of it.
    pub fn first_unseen(&self) -> u64 {
        self.seen.running.iter().copied().fold(self.seen.xmax, u64::min)
    }

    /// As `new` takes it; `None` if there is nothing to say.
    pub fn partial(&self) -> Option<String> {
        let parts: Vec<String> = self.partial.iter().map(|(xid, batch)| format!("{xid}/{batch}")).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The new rows in their order, at most `limit`, and whether that is all of them.
    /// `now` is the snapshot that the ledger's rows are read with; what it counts as running is left for later, be it
    /// visible or not.
    pub fn look<L: Ledger>(
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
        let last = found.last().map(Placed::key);
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

    fn stop_in(&mut self, last: Option<&impl Placed>) {
        if let Some((xid, batch)) = last.map(Placed::key) {
            self.partial.insert(xid, batch);
        }
    }

    /// Everything before the transaction of the last row is seen, but for what is running now.
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
