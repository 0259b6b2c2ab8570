//! After connecting: compares the state of Redis with the database, and continues from there or begins a new epoch.

use std::time::Instant;

use redis::Value;

use super::super::checkpoint::Checkpoint;
use super::super::commands::Commands;
use super::super::entry;
use super::super::key::Template;
use super::super::orgs::Mirrored;
use super::super::position::{EventPosition, ReadPosition};
use super::super::replies;
use super::super::state::{self, LastEntry};
use super::{Awaited, Replicator};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::pg::snapshot;
use crate::pg::time;
use crate::tier;
use crate::worker::transaction::{self, Isolation};

impl Replicator {
    /// Decides from the checkpoint and the registry whether Redis can be trusted.
    pub(super) fn compare_checkpoint(&mut self, replies: &[Value]) -> Result<()> {
        replies::first_error(replies)?;
        let [.., held, registered] = replies else { return Ok(()) };
        let held = replies::text(held).and_then(|text| text.parse::<Checkpoint>().ok());
        let registered = replies::text(registered);
        let Some(template) = self.desired.as_ref().map(|desired| desired.template.clone()) else {
            return Ok(());
        };
        failpoint("mirror-compared");
        let (positions, durable, requests) = transaction::run(Isolation::ReadCommitted, || {
            let positions = tier::lookup::positions()?;
            snapshot::current(|| {
                self.orgs.refresh()?;
                Ok((positions, state::load()?, state::resync_requests()?))
            })
        })?;
        self.positions = positions;
        self.after_seq = durable.after_seq;
        self.resyncs.update(requests);
        let trusted = held.filter(|held| {
            Some(&held.epoch) == durable.epoch.as_ref()
                && Some(&held.epoch) == registered.as_ref()
                && held.timeline == state::timeline()
                && (durable.resyncs_done..=durable.resyncs_reserved).contains(&held.resync_number)
                && durable.stream_key == template.text()
                && held.position.seq <= durable.last_seq + 1
        });
        match trusted {
            Some(held) => {
                // If Redis loses its data again, yet another epoch begins.
                self.new_epoch = None;
                self.resume_from(held)
            }
            None => self.begin_epoch(&template),
        }
    }

    /// Continues from the checkpoint that Redis holds. The streams that were written last are checked themselves.
    pub(super) fn resume_from(&mut self, held: Checkpoint) -> Result<()> {
        let (expected, inside) = transaction::run(Isolation::ReadCommitted, || {
            snapshot::current(|| {
                let mut tail = state::tail(held.position)?;
                let now_ms = time::now() / 1_000;
                let mut kept = Vec::new();
                for last in tail.drain(..) {
                    let org = self.orgs.get(&last.org)?;
                    let is_kept =
                        |org: &Mirrored| org.includes(last.xid, last.ms) && last.ms > now_ms - org.stream_age;
                    if org.as_ref().is_some_and(is_kept) && !self.resyncs.contains(&last.org) {
                        kept.push(last);
                    }
                }
                let inside = if held.position.offset > 0 { state::org_at(held.position.seq)? } else { None };
                Ok((kept, inside))
            })
        })?;
        // Events that had not been sent when the mirror was switched off are skipped.
        let first = EventPosition::before(self.after_seq + 1);
        let inside = inside.filter(|_| held.position >= first);
        self.read_position = ReadPosition { next: held.position.max(first), placed_ms: 0, inside };
        self.checkpoint = Some(held);
        let Some(desired) = self.desired.as_ref().filter(|_| !expected.is_empty()) else {
            self.start_sending();
            return Ok(());
        };
        let mut commands = Commands::default();
        for last in &expected {
            commands.command(&["XREVRANGE", &desired.template.key(&last.org), "+", "-", "COUNT", "1"]);
        }
        self.query(Awaited::Tail(expected), commands);
        Ok(())
    }

    /// Compares the ends of streams with the table. A transaction may have been written except for an org with an
    /// unusable key, and the mirror may have ended before it recorded this.
    pub(super) fn check_tail(&mut self, expected: &[LastEntry], replies: &[Value]) -> Result<()> {
        let mut lost = Vec::new();
        for (last, reply) in expected.iter().zip(replies) {
            let found = match reply {
                Value::Array(entries) => match entries.first() {
                    Some(Value::Array(entry)) => entry.first().and_then(replies::text),
                    _ => None,
                },
                _ => None,
            };
            let expected = entry::stream_id(last.ms, last.seq);
            if found.as_ref() != Some(&expected) && self.last_oversized.get(&last.org) != Some(&expected) {
                lost.push((last.org.clone(), "the last entry of its stream is missing".to_owned()));
            }
        }
        self.start_sending();
        self.set_aside(lost, EventPosition::default())
    }

    pub(super) fn start_sending(&mut self) {
        self.more = true;
        // An early heartbeat shows whether Redis accepts writes even if there is nothing to send.
        self.heartbeat_at = Instant::now();
        self.publish_position();
    }

    /// Begins a new epoch, because Redis does not hold a state that this mirror left in it.
    pub(super) fn begin_epoch(&mut self, template: &Template) -> Result<()> {
        let checkpoint = match self.new_epoch.take() {
            // Redis refused this epoch at the last attempt.
            Some(checkpoint) if checkpoint.timeline == state::timeline() => checkpoint,
            _ => {
                let (checkpoint, requests) = transaction::run(Isolation::ReadCommitted, || {
                    snapshot::current(|| {
                        let checkpoint = state::begin_epoch(template.text(), &self.keys.checkpoint)?;
                        Ok((checkpoint, state::resync_requests()?))
                    })
                })?;
                failpoint("mirror-new-epoch");
                pgrx::log!(
                    "tailstream mirror: begins a new epoch, {} streams to be written again",
                    requests.len()
                );
                self.resyncs.update(requests);
                checkpoint
            }
        };
        self.new_epoch = Some(checkpoint.clone());
        self.read_position = ReadPosition { next: checkpoint.position, placed_ms: 0, inside: None };
        self.furthest_sent = EventPosition::default();
        self.begin_reset(checkpoint)
    }
}
