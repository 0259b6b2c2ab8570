//! A part of the backlog, as one Redis transaction.
//!
//! MULTI … EXEC makes it all or nothing, and the marker goes with it. The marker is watched from the last answer
//! on: if anything touched it meanwhile (another mirror that was believed dead, FLUSHALL), nothing is written.

use redis::{ServerError, Value};

use super::commands::Commands;
use super::feed::Reading;
use super::marker::Marker;
use crate::error::Error;

/// Events in one transaction: Redis serves nobody else while it runs.
pub const MAX_EVENTS: usize = 1_000;
/// Bytes after which a transaction is full; one event may be larger.
pub const MAX_BYTES: usize = 1 << 20;

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
}

/// Commands of one transaction.
#[derive(Default)]
pub struct Part {
    commands: Commands,
    owners: Vec<Owner>,
    orgs: Vec<String>,
    pub entries: usize,
    /// Where reading goes on behind it.
    pub end: Reading,
    /// Events passed over because they were too old.
    pub expired: u64,
}

impl Part {
    pub fn is_full(&self) -> bool {
        self.entries >= MAX_EVENTS || self.commands.len() >= MAX_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Without entries: it only moves the marker.
    pub fn ending_at(end: Reading) -> Self {
        Self { end, ..Self::default() }
    }

    fn owner(&mut self, org: &str) -> Owner {
        let known = self.orgs.iter().rposition(|other| other == org);
        Owner::Org(known.unwrap_or_else(|| {
            self.orgs.push(org.to_owned());
            self.orgs.len() - 1
        }))
    }

    /// Removes what is under the key.
    pub fn clear(&mut self, org: &str, key: &str) {
        let owner = self.owner(org);
        self.commands.command(&["DEL", key]);
        self.owners.push(owner);
    }

    /// Removes what has a smaller id.
    pub fn trim(&mut self, org: &str, key: &str, ms: i64, seq: i64) {
        let owner = self.owner(org);
        self.commands.begin(5).word("XTRIM").word(key).word("MINID").word("=").stream_id(ms, seq);
        self.owners.push(owner);
    }

    /// Adds entries of one org in their order; the last one trims the stream to so many.
    pub fn add(&mut self, org: &str, key: &str, entries: &[Entry], most: i64) {
        let owner = self.owner(org);
        for (index, entry) in entries.iter().enumerate() {
            let trims = index + 1 == entries.len();
            self.commands.begin(if trims { 12 } else { 9 }).word("XADD").word(key);
            if trims {
                self.commands.word("MAXLEN").word("~").number(most);
            }
            self.commands.stream_id(entry.ms, entry.seq).word("id").number(entry.event_id);
            self.commands.word("ts").word(entry.time()).word("data").word(&entry.data);
            self.owners.push(owner);
            self.entries += 1;
        }
    }

    /// The commands to send.
    pub fn pack(&self, key: &str, marker: &Marker) -> Commands {
        let mut all = Commands::default();
        all.command(&["MULTI"]).append(&self.commands);
        all.command(&["SET", key, &marker.to_string()]).command(&["EXEC"]);
        all.command(&["WATCH", key]).command(&["GET", key]);
        all
    }

    /// What the replies to `pack` mean.
    pub fn outcome(&self, replies: &[Value], marker: &Marker) -> Outcome {
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
                Ok(_) if text(now).as_deref() != Some(&*marker.to_string()) => Outcome::Overtaken,
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
    /// Nothing was written, or something was since: the marker is not what it was.
    Overtaken,
    /// Nothing was written, and nothing would be for now.
    Refused(String),
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

/// Whether an error is about the key in question and not about the server.
fn is_of_key(code: &str, details: Option<&str>) -> bool {
    match code {
        "WRONGTYPE" | "NOPERM" => true,
        "ERR" => details.is_some_and(|details| details.contains("XADD") || details.contains("stream")),
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
