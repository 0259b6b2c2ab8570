//! The requests that the replicator has sent and whose responses it awaits.

use std::mem::{Discriminant, discriminant};
use std::time::Instant;

use super::super::checkpoint::Checkpoint;
use super::super::redis_transaction::RedisTransaction;
use super::super::state::{LastEntry, ResyncRequest};
use super::epoch_reset::EpochReset;

/// The request that the next response belongs to.
pub enum Awaited {
    Connection,
    /// The version and the limits of the server.
    Server,
    /// The checkpoint and the epoch in the registry.
    Checkpoint,
    /// The last entries of the streams that were written last.
    Tail(Vec<LastEntry>),
    /// A transaction of an epoch reset.
    Reset(EpochReset, RedisTransaction),
    /// A page of a registry.
    Registered(EpochReset),
    /// The types of the keys that an epoch reset is to remove.
    KeyTypes(EpochReset),
    Transaction(Box<InFlight>),
    /// The type of the key of a stream to be resynced.
    KeyType(ResyncRequest),
    /// A transaction that trims the streams of the orgs after this one.
    Trim(RedisTransaction, Checkpoint, String),
    Heartbeat,
}

impl Awaited {
    /// Distinguishes the steps whose failures are independent of each other.
    pub fn kind(&self) -> (Discriminant<Self>, bool) {
        let is_resync = matches!(self, Self::Transaction(in_flight) if in_flight.resync.is_some());
        (discriminant(self), is_resync)
    }
}

/// A transaction that was sent to Redis.
pub struct InFlight {
    pub transaction: RedisTransaction,
    pub checkpoint: Checkpoint,
    pub since: Instant,
    pub resent: bool,
    pub resync: Option<ResyncRequest>,
    /// The number of the resync, if this is its last transaction.
    pub resync_number: Option<i64>,
}
