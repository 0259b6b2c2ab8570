//! The reset before a new epoch removes the streams that are not resynced. Some hold entries of another epoch, to which
//! new events would be appended. Others belong to orgs that were erased since, and must not reappear.
//!
//! The reset first replaces the checkpoint by a note that a reset is in progress. From then on, transactions of lost
//! connections that arrive late write nothing, and a reset that is interrupted starts again.

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

/// The approximate number of streams that are read from a registry at a time.
const PAGE: &str = "500";

/// A reset in progress.
pub struct EpochReset {
    checkpoint: Checkpoint,
    stage: Stage,
    /// Keys to remove if they are streams, each with the registry that lists it.
    to_remove: Vec<(String, String)>,
}

/// The source of the keys that are examined. Registries are read page by page with Redis's HSCAN cursor.
enum Stage {
    Registries {
        /// The keys of the mirrors whose registries have not been read to the end.
        remaining: Vec<OwnKeys>,
        cursor: String,
    },
    /// The orgs after this one.
    Orgs { after: String },
    /// The new checkpoint was sent.
    Final,
}

impl Replicator {
    /// Starts a reset, which removes streams and then writes the new checkpoint.
    pub(super) fn begin_reset(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let former =
            transaction::run(Isolation::ReadCommitted, || snapshot::current(state::former_checkpoint_keys))?;
        let mut remaining: Vec<OwnKeys> = former.into_iter().map(OwnKeys::beside).collect();
        remaining.push(self.keys.clone());
        let stage = Stage::Registries { remaining, cursor: "0".to_owned() };
        self.write_reset(
            RedisTransaction::default(),
            EpochReset { checkpoint, stage, to_remove: Vec::new() },
        );
        Ok(())
    }

    fn write_reset(&mut self, mut transaction: RedisTransaction, reset: EpochReset) {
        let text = reset.checkpoint_text();
        self.connection.run(transaction.pack(&self.keys, &text));
        self.awaited = Some(Awaited::Reset(reset, transaction));
    }

    /// Continues after a transaction of the reset. If Redis refused it, the reset starts again later.
    pub(super) fn reset_written(
        &mut self,
        reset: EpochReset,
        transaction: &RedisTransaction,
        replies: &[Value],
    ) -> Result<()> {
        match transaction.outcome(replies, &reset.checkpoint_text()) {
            Outcome::Done(_) if matches!(reset.stage, Stage::Final) => {
                self.checkpoint_written(reset.checkpoint);
                self.new_epoch = None;
                self.start_sending();
                Ok(())
            }
            Outcome::Done(_) => self.continue_reset(reset),
            Outcome::Overtaken | Outcome::Aborted(_) => self.overtaken(),
            Outcome::Refused(message) => Err(Error::Redis(message)),
        }
    }

    /// Requests the next page of keys.
    fn continue_reset(&mut self, mut reset: EpochReset) -> Result<()> {
        match &mut reset.stage {
            Stage::Registries { remaining, cursor } => {
                let keys = remaining.last().unwrap_or(&self.keys);
                let mut commands = Commands::default();
                commands.command(&["GET", &keys.checkpoint]);
                commands.command(&["HSCAN", &keys.registry, cursor, "COUNT", PAGE]);
                self.query(Awaited::Registered(reset), commands);
                Ok(())
            }
            Stage::Orgs { after } => {
                let orgs = transaction::run(Isolation::ReadCommitted, || {
                    snapshot::current(|| state::orgs_without_resync(after))
                })?;
                let Some(last) = orgs.last() else { return self.end_reset(reset) };
                after.clone_from(last);
                let keys = orgs.iter().filter_map(|org| Some(self.desired.as_ref()?.template.key(org)));
                reset.to_remove = keys.map(|key| (key, self.keys.registry.clone())).collect();
                self.query_key_types(reset);
                Ok(())
            }
            Stage::Final => Ok(()),
        }
    }

    fn end_reset(&mut self, reset: EpochReset) -> Result<()> {
        let mut transaction = RedisTransaction::default();
        transaction.register("", &reset.checkpoint.epoch, &self.keys.registry);
        self.write_reset(transaction, EpochReset { stage: Stage::Final, ..reset });
        Ok(())
    }

    /// Handles a page of a registry: selects the streams whose org no longer exists, and those under a key that is no
    /// longer in use.
    pub(super) fn registry_page_read(&mut self, mut reset: EpochReset, replies: &[Value]) -> Result<()> {
        let Stage::Registries { remaining, cursor } = &mut reset.stage else { return Ok(()) };
        let Some(OwnKeys { checkpoint, registry }) = remaining.last().cloned() else { return Ok(()) };
        let is_own = registry == self.keys.registry;
        let (mut next, mut streams) = ("0".to_owned(), Vec::new());
        match replies::first_error(replies) {
            Err(error) if is_own => return Err(error),
            Err(error) => {
                pgrx::log!("tailstream mirror: the former registry \"{registry}\" cannot be read: {error}");
            }
            // This database is a copy, and the original still runs. Its streams must not be removed.
            Ok(()) if !is_own && is_ahead(replies, &reset.checkpoint) => {
                pgrx::log!(
                    "tailstream mirror: checkpoint \"{checkpoint}\" belongs to another server that still runs"
                );
            }
            Ok(()) => {
                (next, streams) =
                    page(replies).ok_or_else(|| Error::Redis("the reply to HSCAN is malformed".into()))?;
            }
        }
        if next == "0" {
            remaining.pop();
        }
        *cursor = next;
        if remaining.is_empty() {
            reset.stage = Stage::Orgs { after: String::new() };
        }
        let Some(desired) = &self.desired else { return Ok(()) };
        let orgs = streams.iter().map(|(_, org)| org.clone()).collect();
        let known =
            transaction::run(Isolation::ReadCommitted, || snapshot::current(|| state::known_orgs(orgs)))?;
        let is_removed = |(key, org): &(String, String)| {
            let is_current_key = *key == desired.template.key(org);
            // Streams under other keys in another server's registry may belong to the database that this one is a copy
            // of.
            !key.is_empty() && (!known.contains(org) && is_current_key || is_own && !is_current_key)
        };
        let to_remove = streams.into_iter().filter(is_removed).map(|(key, _)| (key, registry.clone()));
        reset.to_remove = to_remove.collect();
        if reset.to_remove.is_empty() {
            return self.continue_reset(reset);
        }
        self.query_key_types(reset);
        Ok(())
    }

    fn query_key_types(&mut self, reset: EpochReset) {
        let mut commands = Commands::default();
        for (key, _) in &reset.to_remove {
            commands.command(&["TYPE", key]);
        }
        self.query(Awaited::KeyTypes(reset), commands);
    }

    /// Removes the keys that are streams, and no others.
    pub(super) fn remove_streams(&mut self, mut reset: EpochReset, replies: &[Value]) -> Result<()> {
        let mut transaction = RedisTransaction::default();
        for ((key, registry), kind) in std::mem::take(&mut reset.to_remove).into_iter().zip(replies) {
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
        if matches!(self.stage, Stage::Final) {
            self.checkpoint.to_string()
        } else {
            self.checkpoint.resetting()
        }
    }
}

/// Whether the checkpoint in the replies has a later position than the new one.
fn is_ahead(replies: &[Value], checkpoint: &Checkpoint) -> bool {
    let other = replies.first().and_then(replies::text).and_then(|text| text.parse::<Checkpoint>().ok());
    other.is_some_and(|other| other.position.seq > checkpoint.position.seq)
}

/// Reads a reply to HSCAN: the next cursor, and the fields with their values.
fn page(replies: &[Value]) -> Option<(String, Vec<(String, String)>)> {
    let [_, Value::Array(response)] = replies else { return None };
    let [cursor, Value::Array(fields)] = response.as_slice() else { return None };
    let pairs = fields.chunks_exact(2).map(|pair| Some((replies::text(&pair[0])?, replies::text(&pair[1])?)));
    Some((replies::text(cursor)?, pairs.collect::<Option<_>>()?))
}
