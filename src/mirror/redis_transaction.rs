//! A part of the backlog, or anything else that is written to Redis, as one Redis transaction.
//!
//! MULTI … EXEC makes it all or nothing, and the checkpoint goes with it. The checkpoint and the registry of streams are watched
//! from the last answer on: if anything touched one of them meanwhile (another mirror that was believed dead, FLUSHALL,
//! bytes of a lost connection that arrive late), nothing is written. Nothing is written outside of such a transaction.

use redis::Value;

use super::commands::Commands;
use super::entry::{Entry, Oversized};
use super::key::OwnKeys;
use super::position::ReadPosition;
use super::replies;
use super::server::Limits;

/// Whose command it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Org(usize),
    Mirror,
    /// Nobody's: if it fails for its key's own reason, that is no harm.
    Nobody,
}

/// Commands of one transaction.
#[derive(Default)]
pub struct RedisTransaction {
    commands: Commands,
    owners: Vec<Owner>,
    orgs: Vec<String>,
    /// The org of the last entry.
    sender: Option<usize>,
    pub entries: usize,
    /// Where reading goes on behind it.
    pub end: ReadPosition,
    /// Events passed over because they were too old.
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

    /// Without entries: it only moves the checkpoint.
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

    /// Whether it has commands for the org.
    pub fn concerns(&self, org: &str) -> bool {
        self.orgs.iter().any(|other| other == org)
    }

    /// The org of the last entry.
    pub fn sender(&self) -> Option<&str> {
        self.sender.map(|sender| self.orgs[sender].as_str())
    }

    /// Removes what is under the key, and its line in the registry.
    pub fn clear(&mut self, org: &str, key: &str, registry: &str) {
        let owner = self.owner(org);
        self.commands.command(&["DEL", key]);
        self.owners.push(owner);
        self.unregister(key, registry);
    }

    /// The same for a stream that is no org's.
    pub fn remove(&mut self, key: &str, registry: &str) {
        self.commands.command(&["DEL", key]);
        self.owners.push(Owner::Nobody);
        self.unregister(key, registry);
    }

    /// Notes that the mirror has made this stream.
    pub fn register(&mut self, key: &str, org: &str, registry: &str) {
        self.commands.command(&["HSET", registry, key, org]);
        self.owners.push(Owner::Mirror);
    }

    pub fn unregister(&mut self, key: &str, registry: &str) {
        self.commands.command(&["HDEL", registry, key]);
        self.owners.push(Owner::Mirror);
    }

    /// Removes what has a smaller id.
    pub fn trim(&mut self, org: &str, key: &str, ms: i64, seq: i64) {
        let owner = self.owner(org);
        // A stream may be kept for longer than there are ids.
        let (ms, seq) = if ms < 0 { (0, 0) } else { (ms, seq) };
        self.commands.begin(5).word("XTRIM").word(key).word("MINID").word("=").stream_id(ms, seq);
        self.owners.push(owner);
    }

    /// Trims a stream to what its tier keeps, roughly: by whole nodes.
    pub fn limit(&mut self, org: &str, key: &str, entries: i64, oldest_ms: i64) {
        let owner = self.owner(org);
        self.commands.begin(5).word("XTRIM").word(key).word("MAXLEN").word("~").number(entries);
        self.commands.begin(5).word("XTRIM").word(key).word("MINID").word("~").number(oldest_ms.max(0));
        self.owners.extend([owner; 2]);
    }

    /// Adds entries of one org in their order; the last one trims the stream to so many.
    pub fn add(&mut self, org: &str, key: &str, entries: &[Entry], most: i64) {
        let sender = self.org(org);
        self.sender = Some(sender);
        for (index, entry) in entries.iter().enumerate() {
            let trims = index + 1 == entries.len();
            self.commands.begin(if trims { 12 } else { 9 }).word("XADD").word(key);
            if trims {
                self.commands.word("MAXLEN").word("~").number(most);
            }
            self.commands.stream_id(entry.ms, entry.seq).word("id").number(entry.event_id);
            self.commands.word("ts").word(entry.time()).word("data").word(&entry.data);
            self.owners.push(Owner::Org(sender));
            self.entries += 1;
        }
    }

    /// The commands to send, with the text that the checkpoint's key will hold. They leave the part: they may be large.
    pub fn pack(&mut self, keys: &OwnKeys, checkpoint: &str) -> Commands {
        let mut all = Commands::default();
        all.command(&["MULTI"]).append(std::mem::take(&mut self.commands));
        all.command(&["SET", &keys.checkpoint, checkpoint]).command(&["EXEC"]);
        all.command(&["WATCH", &keys.checkpoint, &keys.registry]).command(&["GET", &keys.checkpoint]);
        all
    }

    /// What the replies to `pack` mean.
    pub fn outcome(&self, replies: &[Value], checkpoint: &str) -> Outcome {
        let [multi, queued @ .., set, exec, _watch, now] = replies else {
            return Outcome::Refused("an answer that fits no question".into());
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
            _ => Outcome::Refused("an answer to EXEC that is no list".into()),
        }
    }

    /// The orgs whose commands failed for their own reason; the message if the server refused anything as such.
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
                Owner::Nobody if is_of_key(error.code(), error.details()) => {}
                _ => return Err(replies::error_text(error)),
            }
        }
        Ok(failed)
    }
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written, but for these orgs, each with what Redis says.
    Done(Vec<(String, String)>),
    /// Nothing was written because of these orgs.
    Aborted(Vec<(String, String)>),
    /// Nothing was written, or something was since: the checkpoint is not what it was.
    Overtaken,
    /// Nothing was written, and nothing would be for now.
    Refused(String),
}

/// Whether an error is about the key in question and not about the server. A command that the server does not know, or
/// the user may not give, fails for every org alike.
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
