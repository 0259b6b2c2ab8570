//! Periodic work: trimming streams, and checking that Redis still holds the expected checkpoint.

use std::time::{Duration, Instant};

use redis::Value;

use super::super::checkpoint::Checkpoint;
use super::super::commands::Commands;
use super::super::redis_transaction::{Outcome, RedisTransaction};
use super::super::state;
use super::{Awaited, HEARTBEAT, Replicator};
use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::tier;
use crate::worker::transaction::{self, Isolation};

/// All streams are trimmed at this interval, in addition to the trimming when entries are added.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

impl Replicator {
    /// Trims the next streams. Returns whether a request was sent: none is at the end of the list, and the next call
    /// starts at its beginning.
    pub(super) fn trim_streams(&mut self) -> Result<bool> {
        let Some(desired) = &self.desired else { return Ok(false) };
        let after = self.trim_after.take().unwrap_or_default();
        let limits = transaction::run(Isolation::ReadCommitted, || {
            tier::lookup::in_use()?;
            snapshot::current(|| state::limits(&after))
        })?;
        let Some(last) = limits.last() else {
            self.trim_at = Instant::now() + TRIM_INTERVAL;
            return Ok(false);
        };
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(false) };
        self.trim_after = Some(last.org.clone());
        let mut transaction = RedisTransaction::default();
        for stream in limits.iter().filter(|stream| !self.untrimmable.contains(&stream.org)) {
            transaction.trim_to_limits(
                &stream.org,
                &desired.template.key(&stream.org),
                stream.entries,
                stream.oldest_ms,
            );
        }
        self.connection.run(transaction.pack(&self.keys, &checkpoint.to_string()));
        self.awaited = Some(Awaited::Trim(transaction, checkpoint, after));
        Ok(true)
    }

    /// Handles the replies to a trim. If Redis refused access to some keys, no stream was trimmed, and the trim is
    /// repeated without these keys.
    pub(super) fn streams_trimmed(
        &mut self,
        transaction: &RedisTransaction,
        replies: &[Value],
        checkpoint: Checkpoint,
        after: String,
    ) -> Result<()> {
        match transaction.outcome(replies, &checkpoint.to_string()) {
            Outcome::Done(_) => self.checkpoint_written(checkpoint),
            Outcome::Aborted(failed) => {
                for (org, message) in failed {
                    pgrx::log!("tailstream mirror: the stream of org \"{org}\" cannot be trimmed: {message}");
                    self.untrimmable.insert(org);
                }
                self.trim_after = Some(after);
                self.forget_checkpoint();
            }
            Outcome::Overtaken => self.overtaken()?,
            Outcome::Refused(message) => return Err(Error::Redis(message)),
        }
        Ok(())
    }

    /// Checks that Redis holds the expected checkpoint. If positions without entries were passed, writes a new
    /// checkpoint instead. After a failure, writes it in any case, to find out whether writes work again.
    pub(super) fn send_heartbeat(&mut self, now: Instant) {
        self.heartbeat_at = now + HEARTBEAT;
        let behind =
            self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.position != self.read_position.next);
        if !self.write_succeeded || behind {
            self.send(RedisTransaction::ending_at(self.read_position.clone()), None, None);
            return;
        }
        let mut commands = Commands::default();
        commands.command(&["GET", &self.keys.checkpoint]);
        self.query(Awaited::Heartbeat, commands);
    }
}
