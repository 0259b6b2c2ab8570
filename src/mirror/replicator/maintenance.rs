//! What is done now and then: trimming, and seeing whether Redis is still what it was.

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

/// How often every stream is trimmed, besides what each new entry does.
const SWEEP: Duration = Duration::from_secs(60);

impl Replicator {
    /// Trims the next streams; begins anew after the last. Returns whether that gave an order.
    pub(super) fn order_sweep(&mut self) -> Result<bool> {
        let Some(desired) = &self.desired else { return Ok(false) };
        let after = self.sweep.take().unwrap_or_default();
        let limits = transaction::run(Isolation::ReadCommitted, || {
            tier::lookup::in_use()?;
            snapshot::current(|| state::limits(&after))
        })?;
        let Some(last) = limits.last() else {
            self.sweep_at = Instant::now() + SWEEP;
            return Ok(false);
        };
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(false) };
        self.sweep = Some(last.org.clone());
        let mut transaction = RedisTransaction::default();
        for stream in limits.iter().filter(|stream| !self.untrimmed.contains(&stream.org)) {
            transaction.limit(
                &stream.org,
                &desired.template.key(&stream.org),
                stream.entries,
                stream.oldest_ms,
            );
        }
        self.connection.run(transaction.pack(&self.keys, &checkpoint.to_string()));
        self.awaited = Some(Awaited::Sweep(transaction, checkpoint, after));
        Ok(true)
    }

    /// Streams were trimmed. If the keys of some are out of reach none was: it is tried again without those.
    pub(super) fn swept(
        &mut self,
        transaction: &RedisTransaction,
        replies: &[Value],
        checkpoint: Checkpoint,
        after: String,
    ) -> Result<()> {
        match transaction.outcome(replies, &checkpoint.to_string()) {
            Outcome::Done(_) => self.written(checkpoint),
            Outcome::Aborted(failed) => {
                for (org, message) in failed {
                    pgrx::log!("tailstream mirror: the stream of org \"{org}\" cannot be trimmed: {message}");
                    self.untrimmed.insert(org);
                }
                self.sweep = Some(after);
                self.forget_checkpoint();
            }
            Outcome::Overtaken => self.overtaken()?,
            Outcome::Refused(message) => return Err(Error::Redis(message)),
        }
        Ok(())
    }

    /// Asks whether Redis is what it was. Where positions without entries were passed it moves the checkpoint on, and
    /// after a failure it writes it in any case, to see whether that works.
    pub(super) fn order_heartbeat(&mut self, now: Instant) {
        self.heartbeat_at = now + HEARTBEAT;
        let behind =
            self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.position != self.read_position.next);
        if !self.proven || behind {
            self.send(RedisTransaction::ending_at(self.read_position.clone()), None, None);
            return;
        }
        let mut commands = Commands::default();
        commands.command(&["GET", &self.keys.checkpoint]);
        self.ask(Awaited::Heartbeat, commands);
    }
}
