//! One transaction of Redis: the next events of the backlog, or another change.
//!
//! MULTI … EXEC writes all of it or nothing, and it includes the checkpoint. The checkpoint and the registry are
//! watched from the last reply on. If either has changed since (by another mirror that was believed dead, by FLUSHALL,
//! or by bytes of a lost connection that arrive late), EXEC writes nothing. The mirror writes nothing outside of such
//! transactions.

use redis::Value;

use super::commands::Commands;
use super::entry::{Entry, Oversized};
use super::key::OwnKeys;
use super::position::ReadPosition;
use super::replies;
use super::server::Limits;

/// The owner of a command decides what an error of the command means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Org(usize),
    Mirror,
    /// An error about the key of this command is ignored.
    Ignored,
}

/// The commands of one transaction, in the order in which they are sent.
#[derive(Default)]
pub struct RedisTransaction {
    commands: Commands,
    owners: Vec<Owner>,
    orgs: Vec<String>,
    /// The org of the last entry, as an index of `orgs`.
    last_org: Option<usize>,
    pub entries: usize,
    /// The position at which reading continues after this transaction.
    pub end: ReadPosition,
    /// The number of events that were skipped because they were older than the stream keeps.
    pub expired: u64,
    pub oversized: Vec<Oversized>,
}

impl RedisTransaction {
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.entries >= limits.events || self.commands.len() >= limits.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// A transaction without entries, which only moves the checkpoint.
    pub fn ending_at(end: ReadPosition) -> Self {
        Self { end, ..Self::default() }
    }

    fn org(&mut self, org: &str) -> usize {
        let known = self.orgs.iter().rposition(|other| other == org);
        known.unwrap_or_else(|| {
            self.orgs.push(org.to_owned());
            self.orgs.len() - 1
        })
    }

    fn owner(&mut self, org: &str) -> Owner {
        Owner::Org(self.org(org))
    }

    /// Whether the transaction has commands for the org.
    pub fn concerns(&self, org: &str) -> bool {
        self.orgs.iter().any(|other| other == org)
    }

    /// The org of the last entry.
    pub fn last_org(&self) -> Option<&str> {
        self.last_org.map(|last_org| self.orgs[last_org].as_str())
    }

    /// Removes the org's stream, and its field in the registry.
    pub fn clear(&mut self, org: &str, key: &str, registry: &str) {
        let owner = self.owner(org);
        self.commands.command(&["DEL", key]);
        self.owners.push(owner);
        self.unregister(key, registry);
    }

    /// Removes a stream that belongs to no org, and its field in the registry.
    pub fn remove(&mut self, key: &str, registry: &str) {
        self.commands.command(&["DEL", key]);
        self.owners.push(Owner::Ignored);
        self.unregister(key, registry);
    }

    /// Adds a stream to the registry.
    pub fn register(&mut self, key: &str, org: &str, registry: &str) {
        self.commands.command(&["HSET", registry, key, org]);
        self.owners.push(Owner::Mirror);
    }

    pub fn unregister(&mut self, key: &str, registry: &str) {
        self.commands.command(&["HDEL", registry, key]);
        self.owners.push(Owner::Mirror);
    }

    /// Removes the entries with smaller ids.
    pub fn trim(&mut self, org: &str, key: &str, ms: i64, seq: i64) {
        let owner = self.owner(org);
        // If a stream is kept for longer than the Unix epoch is ago, the time is negative. No id is.
        let (ms, seq) = if ms < 0 { (0, 0) } else { (ms, seq) };
        self.commands.begin(5).word("XTRIM").word(key).word("MINID").word("=").stream_id(ms, seq);
        self.owners.push(owner);
    }

    /// Trims a stream approximately to the limits of its tier: Redis removes only whole nodes.
    pub fn trim_to_limits(&mut self, org: &str, key: &str, entries: i64, oldest_ms: i64) {
        let owner = self.owner(org);
        self.commands.begin(5).word("XTRIM").word(key).word("MAXLEN").word("~").number(entries);
        self.commands.begin(5).word("XTRIM").word(key).word("MINID").word("~").number(oldest_ms.max(0));
        self.owners.extend([owner; 2]);
    }

    /// Adds the entries of one org in their order. The last one trims the stream to about `most` entries.
    pub fn add(&mut self, org: &str, key: &str, entries: &[Entry], most: i64) {
        let last_org = self.org(org);
        self.last_org = Some(last_org);
        for (index, entry) in entries.iter().enumerate() {
            let trims = index + 1 == entries.len();
            self.commands.begin(if trims { 12 } else { 9 }).word("XADD").word(key);
            if trims {
                self.commands.word("MAXLEN").word("~").number(most);
            }
            self.commands.stream_id(entry.ms, entry.seq).word("id").number(entry.event_id);
            self.commands.word("ts").word(entry.time()).word("data").word(&entry.data);
            self.owners.push(Owner::Org(last_org));
            self.entries += 1;
        }
    }

    /// Returns the commands to send, which set the checkpoint's key to `checkpoint`. The commands are moved out of the
    /// transaction, because they may be large.
    pub fn pack(&mut self, keys: &OwnKeys, checkpoint: &str) -> Commands {
        let mut all = Commands::default();
        all.command(&["MULTI"]).append(std::mem::take(&mut self.commands));
        all.command(&["SET", &keys.checkpoint, checkpoint]).command(&["EXEC"]);
        all.command(&["WATCH", &keys.checkpoint, &keys.registry]).command(&["GET", &keys.checkpoint]);
        all
    }

    /// Interprets the replies to the commands of `pack`.
    pub fn outcome(&self, replies: &[Value], checkpoint: &str) -> Outcome {
        let [multi, queued @ .., set, exec, _watch, now] = replies else {
            return Outcome::Refused("unexpected number of replies".into());
        };
        if let Value::ServerError(error) = multi {
            return Outcome::Refused(replies::error_text(error));
        }
        let owners = self.owners.iter().copied().chain([Owner::Mirror]);
        let refusals = queued.iter().chain([set]).zip(owners.clone());
        let failed = self.failures(refusals);
        match (exec, failed) {
            (_, Err(message)) => Outcome::Refused(message),
            (_, Ok(failed)) if !failed.is_empty() => Outcome::Aborted(failed),
            (Value::Nil, _) => Outcome::Overtaken,
            (Value::Array(results), _) => match self.failures(results.iter().zip(owners)) {
                Err(message) => Outcome::Refused(message),
                Ok(_) if replies::text(now).as_deref() != Some(checkpoint) => Outcome::Overtaken,
                Ok(failed) => Outcome::Done(failed),
            },
            (Value::ServerError(error), _) => Outcome::Refused(replies::error_text(error)),
            _ => Outcome::Refused("the reply to EXEC is not an array".into()),
        }
    }

    /// Returns the orgs whose commands failed because of their key, each with the message of Redis. Returns an error
    /// with the message if the server refused a command for another reason.
    fn failures<'v>(
        &self,
        replies: impl Iterator<Item = (&'v Value, Owner)>,
    ) -> Result<Vec<(String, String)>, String> {
        let mut failed: Vec<(String, String)> = Vec::new();
        for (reply, owner) in replies {
            let Value::ServerError(error) = reply else { continue };
            match owner {
                Owner::Org(index) if is_of_key(error.code(), error.details()) => {
                    let org = &self.orgs[index];
                    if !failed.iter().any(|(other, _)| other == org) {
                        failed.push((org.clone(), replies::error_text(error)));
                    }
                }
                Owner::Ignored if is_of_key(error.code(), error.details()) => {}
                _ => return Err(replies::error_text(error)),
            }
        }
        Ok(failed)
    }
}

/// The outcome of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The transaction was written, except for these orgs, each with the message of Redis.
    Done(Vec<(String, String)>),
    /// Nothing was written because of these orgs, each with the message of Redis.
    Aborted(Vec<(String, String)>),
    /// Another client has changed the checkpoint or the registry: nothing was written, or the checkpoint was changed
    /// afterwards.
    Overtaken,
    /// Nothing was written. The server refuses writes for now.
    Refused(String),
}

/// Whether an error is about the key and not about the server. A command that the server does not know, or that the
/// user is not permitted to run, fails for every org.
fn is_of_key(code: &str, details: Option<&str>) -> bool {
    let says = |text: &str| details.is_some_and(|details| details.contains(text));
    match code {
        "WRONGTYPE" => true,
        "NOPERM" => !says("command"),
        "ERR" => !says("unknown command") && (says("XADD") || says("stream")),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
