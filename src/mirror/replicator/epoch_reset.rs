//! Before a new epoch: streams that are not made again are removed. They hold what another epoch left, and the next
//! event would be added to that; or they are of orgs that were erased since, and must not come back.
//!
//! First the checkpoint makes room for the note that a reset is going on. So bytes of a lost connection that arrive late
//! write nothing any more, and a reset that is interrupted begins again.

use redis::Value;

use super::super::checkpoint::Checkpoint;
use super::super::commands::Commands;
use super::super::key::OwnKeys;
use super::super::redis_transaction::{Outcome, RedisTransaction};
use super::super::replies;
use super::super::state;
use super::{Awaited, Replicator};
use crate::error::{Error, Result};
use crate::pg::snapshot;
use crate::worker::transaction::{self, Isolation};

/// Streams of a registry that are asked for at a time, roughly.
const PAGE: &str = "500";

/// A reset that is going on.
pub struct EpochReset {
    checkpoint: Checkpoint,
    stage: Stage,
    /// Keys that are to go, if they are streams, and the registry that lists each.
    doomed: Vec<(String, String)>,
}

/// What is looked through. Registries are read page by page, from a cursor of Redis.
enum Stage {
    Registries {
        /// Those left to read, by the checkpoints beside them.
        left: Vec<OwnKeys>,
        cursor: String,
    },
    /// The orgs behind this one.
    Orgs { after: String },
    /// The new checkpoint is on its way.
    Over,
}

impl Replicator {
    /// Removes what has to go, and then writes the new checkpoint.
    pub(super) fn begin_reset(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let former =
            transaction::run(Isolation::ReadCommitted, || snapshot::current(state::former_checkpoint_keys))?;
        let mut left: Vec<OwnKeys> = former.into_iter().map(OwnKeys::beside).collect();
        left.push(self.keys.clone());
        let stage = Stage::Registries { left, cursor: "0".to_owned() };
        self.write_reset(RedisTransaction::default(), EpochReset { checkpoint, stage, doomed: Vec::new() });
        Ok(())
    }

    fn write_reset(&mut self, mut transaction: RedisTransaction, reset: EpochReset) {
        let text = reset.checkpoint_text();
        self.connection.run(transaction.pack(&self.keys, &text));
        self.awaited = Some(Awaited::Reset(reset, transaction));
    }

    /// Goes on behind a transaction of the reset, unless Redis refused it: then the reset begins again, later.
    pub(super) fn reset_written(
        &mut self,
        reset: EpochReset,
        transaction: &RedisTransaction,
        replies: &[Value],
    ) -> Result<()> {
        match transaction.outcome(replies, &reset.checkpoint_text()) {
            Outcome::Done(_) if matches!(reset.stage, Stage::Over) => {
                self.written(reset.checkpoint);
                self.new_epoch = None;
                self.start_sending();
                Ok(())
            }
            Outcome::Done(_) => self.continue_reset(reset),
            Outcome::Overtaken | Outcome::Aborted(_) => self.overtaken(),
            Outcome::Refused(message) => Err(Error::Redis(message)),
        }
    }

    /// Asks for what is looked through next.
    fn continue_reset(&mut self, mut reset: EpochReset) -> Result<()> {
        match &mut reset.stage {
            Stage::Registries { left, cursor } => {
                let keys = left.last().unwrap_or(&self.keys);
                let mut commands = Commands::default();
                commands.command(&["GET", &keys.checkpoint]);
                commands.command(&["HSCAN", &keys.registry, cursor, "COUNT", PAGE]);
                self.ask(Awaited::Registered(reset), commands);
                Ok(())
            }
            Stage::Orgs { after } => {
                let orgs = transaction::run(Isolation::ReadCommitted, || {
                    snapshot::current(|| state::orgs_without_resync(after))
                })?;
                let Some(last) = orgs.last() else { return self.end_reset(reset) };
                after.clone_from(last);
                let keys = orgs.iter().filter_map(|org| Some(self.desired.as_ref()?.template.key(org)));
                reset.doomed = keys.map(|key| (key, self.keys.registry.clone())).collect();
                self.ask_kinds(reset);
                Ok(())
            }
            Stage::Over => Ok(()),
        }
    }

    fn end_reset(&mut self, reset: EpochReset) -> Result<()> {
        let mut transaction = RedisTransaction::default();
        transaction.register("", &reset.checkpoint.epoch, &self.keys.registry);
        self.write_reset(transaction, EpochReset { stage: Stage::Over, ..reset });
        Ok(())
    }

    /// Some streams of a registry are known: those go that are no org's, or no org's any more.
    pub(super) fn streams_registered(&mut self, mut reset: EpochReset, replies: &[Value]) -> Result<()> {
        let Stage::Registries { left, cursor } = &mut reset.stage else { return Ok(()) };
        let Some(OwnKeys { checkpoint, registry }) = left.last().cloned() else { return Ok(()) };
        let is_own = registry == self.keys.registry;
        let (mut next, mut streams) = ("0".to_owned(), Vec::new());
        match replies::first_error(replies) {
            Err(error) if is_own => return Err(error),
            Err(error) => {
                pgrx::log!(
                    "tailstream mirror: \"{registry}\", from before this server, is not read: {error}"
                );
            }
            // This database is a copy, and the other one went on: what it has is not ours to remove.
            Ok(()) if !is_own && is_ahead(replies, &reset.checkpoint) => {
                pgrx::log!(
                    "tailstream mirror: \"{checkpoint}\" is another server's, which goes on by itself"
                );
            }
            Ok(()) => {
                (next, streams) =
                    page(replies).ok_or_else(|| Error::Redis("an answer to HSCAN that is none".into()))?;
            }
        }
        if next == "0" {
            left.pop();
        }
        *cursor = next;
        if left.is_empty() {
            reset.stage = Stage::Orgs { after: String::new() };
        }
        let Some(desired) = &self.desired else { return Ok(()) };
        let orgs = streams.iter().map(|(_, org)| org.clone()).collect();
        let known =
            transaction::run(Isolation::ReadCommitted, || snapshot::current(|| state::known_orgs(orgs)))?;
        let is_doomed = |(key, org): &(String, String)| {
            let is_key_of_today = *key == desired.template.key(org);
            // What another server's registry has under other keys may belong to a database that this one is a copy of.
            !key.is_empty() && (!known.contains(org) && is_key_of_today || is_own && !is_key_of_today)
        };
        let doomed = streams.into_iter().filter(is_doomed).map(|(key, _)| (key, registry.clone()));
        reset.doomed = doomed.collect();
        if reset.doomed.is_empty() {
            return self.continue_reset(reset);
        }
        self.ask_kinds(reset);
        Ok(())
    }

    fn ask_kinds(&mut self, reset: EpochReset) {
        let mut commands = Commands::default();
        for (key, _) in &reset.doomed {
            commands.command(&["TYPE", key]);
        }
        self.ask(Awaited::Kinds(reset), commands);
    }

    /// Removes those that are streams, and no others.
    pub(super) fn clear_streams(&mut self, mut reset: EpochReset, replies: &[Value]) -> Result<()> {
        let mut transaction = RedisTransaction::default();
        for ((key, registry), kind) in std::mem::take(&mut reset.doomed).into_iter().zip(replies) {
            match replies::text(kind).as_deref() {
                Some("stream") => transaction.remove(&key, &registry),
                Some(_) => transaction.unregister(&key, &registry),
                None => {}
            }
        }
        if transaction.is_empty() {
            return self.continue_reset(reset);
        }
        self.write_reset(transaction, reset);
        Ok(())
    }
}

impl EpochReset {
    fn checkpoint_text(&self) -> String {
        if matches!(self.stage, Stage::Over) {
            self.checkpoint.to_string()
        } else {
            self.checkpoint.resetting()
        }
    }
}

/// Whether the checkpoint in the answer has come further than the new one.
fn is_ahead(replies: &[Value], checkpoint: &Checkpoint) -> bool {
    let other = replies.first().and_then(replies::text).and_then(|text| text.parse::<Checkpoint>().ok());
    other.is_some_and(|other| other.position.seq > checkpoint.position.seq)
}

/// The next cursor and the fields and values of an answer to HSCAN.
fn page(replies: &[Value]) -> Option<(String, Vec<(String, String)>)> {
    let [_, Value::Array(answer)] = replies else { return None };
    let [cursor, Value::Array(fields)] = answer.as_slice() else { return None };
    let pairs = fields.chunks_exact(2).map(|pair| Some((replies::text(&pair[0])?, replies::text(&pair[1])?)));
    Some((replies::text(cursor)?, pairs.collect::<Option<_>>()?))
}
