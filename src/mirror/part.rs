//! A part of the backlog, or anything else that is written to Redis, as one Redis transaction.
//!
//! MULTI … EXEC makes it all or nothing, and the checkpoint goes with it. The checkpoint and the registry of streams are watched
//! from the last answer on: if anything touched one of them meanwhile (another mirror that was believed dead, FLUSHALL,
//! bytes of a lost connection that arrive late), nothing is written. Nothing is written outside of such a transaction.

use redis::{ServerError, Value};

use super::commands::Commands;
use super::key::OwnKeys;
use super::position::ReadPosition;
use super::server::Limits;
use crate::error::Error;

/// One event on its way.
pub struct Entry {
    pub ms: i64,
    pub seq: i64,
    pub event_id: i64,
    /// The event as JSON, as `encode` writes it.
    pub data: String,
}

impl Entry {
    /// RFC 3339 with microseconds: what the JSON begins with. A time that RFC 3339 has no year for is a number.
    pub fn time(&self) -> &str {
        let rest = self.data.strip_prefix(TIME_FIRST).unwrap_or_default();
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        rest[..end].trim_matches('"')
    }
}

/// How the JSON of every event begins.
const TIME_FIRST: &str = "{\"created_at\":";

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
pub struct Part {
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

/// An event passed over because Redis takes none so large.
pub struct Oversized {
    pub org: String,
    pub event_id: i64,
    /// Of its JSON.
    pub bytes: usize,
    /// The id that its entry would have.
    pub ms: i64,
    pub seq: i64,
}

impl Part {
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
            return Outcome::Refused(words(error));
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
                Ok(_) if text(now).as_deref() != Some(checkpoint) => Outcome::Overtaken,
                Ok(failed) => Outcome::Done(failed),
            },
            (Value::ServerError(error), _) => Outcome::Refused(words(error)),
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
                        failed.push((org.clone(), words(error)));
                    }
                }
                Owner::Nobody if is_of_key(error.code(), error.details()) => {}
                _ => return Err(words(error)),
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

/// The id of an entry, as Redis writes it.
pub fn stream_id(ms: i64, seq: i64) -> String {
    format!("{ms}-{seq}")
}

/// An error as Redis itself puts it.
pub fn words(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

/// The first reply that is an error, as one.
pub fn first_error(replies: &[Value]) -> Result<(), Error> {
    let error = replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(Error::Redis(words(error))),
        _ => None,
    });
    error.map_or(Ok(()), Err)
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

/// The text of a reply that is one.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
