//! Parts of the backlog: made ready, sent, confirmed.

use std::time::{Duration, Instant};

use redis::Value;

use super::super::checkpoint::Checkpoint;
use super::super::entry::{Oversized, stream_id};
use super::super::position::EventPosition;
use super::super::reader::{self, Source};
use super::super::redis_transaction::{Outcome, RedisTransaction};
use super::super::state::{self, ResyncRequest};
use super::suspect::Suspect;
use super::{Awaited, HEARTBEAT, Replicator, UnderWay};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::metrics::counter::{Counter, Timer};
use crate::metrics::shared::{self, Role};
use crate::pg::snapshot;
use crate::pg::time;
use crate::tier;
use crate::worker::process;
use crate::worker::transaction::{self, Isolation};

impl Replicator {
    /// Reads the next part, unless one is ready or nothing was placed since.
    pub(super) fn make_ready(&mut self) -> Result<()> {
        if self.checkpoint.is_none() || self.ready.as_ref().is_some_and(|transaction| !transaction.is_empty())
        {
            return Ok(());
        }
        if matches!(&self.awaited, Some(Awaited::Transaction(under_way)) if under_way.resync_number.is_some())
        {
            // An org is about to follow the others again, from the place that was read up to.
            return Ok(());
        }
        let requests = self.slot.progress.requests();
        let requested = self.requests != requests;
        let placed = self.slot.progress.placed_seq() >= self.read_position.next.seq;
        if !self.more && !requested && !placed {
            return Ok(());
        }
        self.requests = requests;
        let Some(desired) = &self.desired else { return Ok(()) };
        let (template, after_seq, positions) = (desired.template.clone(), self.after_seq, self.positions);
        let mut read_position = self.read_position.clone();
        let mut limits = self.limits;
        if let Some(events) = self.suspect.as_ref().and_then(|suspect| suspect.limit(read_position.next)) {
            limits.events = limits.events.min(events);
        }
        let result = transaction::run(Isolation::ReadCommitted, || {
            if tier::lookup::positions()? != positions {
                // Other tables than those that the cursor is of: as if there had been none in between.
                return Err(Error::StorageMissing);
            }
            snapshot::current(|| {
                // Whoever asked for a refresh before may have had the change; requests are counted for this place alone.
                if self.orgs.refresh()? || requested {
                    self.resyncs.update(state::resync_requests()?);
                    self.sweep_at = Instant::now();
                }
                let resyncs = &self.resyncs;
                let mut source = Source {
                    orgs: &mut self.orgs,
                    template: &template,
                    is_resyncing: &|org| resyncs.contains(org),
                    after_seq,
                    registry: &self.keys.registry,
                    limits,
                };
                reader::next(&mut source, &mut read_position)
            })
        });
        match result {
            Ok((transaction, more)) => {
                self.slot.count(Counter::MirrorExpired, transaction.expired);
                (self.read_position, self.more) = (read_position, more);
                self.ready = Some(transaction);
                self.publish();
                Ok(())
            }
            Err(error) => match reader::take_failed() {
                // One org's events cannot be read: the others go on without it.
                Some((org, seq)) => {
                    self.set_aside(vec![(org, error.to_string())], EventPosition::before(seq + 1))
                }
                None => Err(error),
            },
        }
    }

    /// Everything that had to be sent before the last part was read is sent, unless it is ready or under way.
    pub(super) fn publish(&self) {
        let under_way =
            matches!(&self.awaited, Some(Awaited::Transaction(under_way)) if under_way.resync.is_none());
        let ready = self.ready.as_ref().is_some_and(|transaction| !transaction.is_empty());
        let next = match &self.checkpoint {
            Some(checkpoint) if under_way || ready => checkpoint.position,
            _ => self.read_position.next,
        };
        self.slot.progress.set_cursor(next.seq, next.offset);
    }

    /// Sends a part, unless nothing may be sent for now. `resync` is the number of the resync that it completes.
    pub(super) fn send(
        &mut self,
        mut transaction: RedisTransaction,
        resync: Option<ResyncRequest>,
        resync_number: Option<i64>,
    ) -> bool {
        let Some(current) = &self.checkpoint else { return false };
        let position = if resync.is_some() { current.position } else { transaction.end.next };
        let checkpoint = Checkpoint {
            position,
            resync_number: resync_number.unwrap_or(current.resync_number),
            ..current.clone()
        };
        let resent = resync.is_some() || transaction.end.next <= self.furthest;
        if resync.is_none() {
            self.furthest = self.furthest.max(transaction.end.next);
        }
        self.tell_oversized(&transaction);
        failpoint("mirror-before-send");
        self.connection.run(transaction.pack(&self.keys, &checkpoint.to_string()));
        failpoint("mirror-sent");
        let since = Instant::now();
        self.awaited = Some(Awaited::Transaction(Box::new(UnderWay {
            transaction,
            checkpoint,
            since,
            resent,
            resync,
            resync_number,
        })));
        true
    }

    /// Names the events that are left out because Redis takes none so large.
    fn tell_oversized(&mut self, transaction: &RedisTransaction) {
        for Oversized { org, event_id, bytes, ms, seq } in &transaction.oversized {
            let message = format!(
                "event {event_id} of org \"{org}\" is left out of its stream: it has {bytes} bytes as JSON, and Redis takes {}",
                self.limits.entry
            );
            pgrx::log!("tailstream mirror: {message}");
            shared::note_error(self.slot, Role::Mirror, time::to_postgres_time(time::now()), &message);
            self.left_out.insert(org.clone(), stream_id(*ms, *seq));
        }
        self.slot.count(Counter::MirrorOversized, transaction.oversized.len() as u64);
    }

    /// Redis has answered what a part came to.
    pub(super) fn transaction_answered(&mut self, under_way: UnderWay, replies: &[Value]) -> Result<()> {
        let UnderWay { transaction, checkpoint, since, resent, resync, resync_number } = under_way;
        failpoint("mirror-answered");
        self.slot.histogram(Timer::MirrorPipeline).observe(since.elapsed());
        let settled = self.settle(&transaction, replies, checkpoint, resync.is_some());
        if let (Err(_), Some(request)) = (&settled, &resync) {
            // Its first part may go through each time.
            self.resyncs.interrupted(&request.org, Instant::now(), process::random());
        }
        let failed = settled?;
        self.count(&transaction, resent, resync.is_some());
        match (&resync, resync_number) {
            (Some(request), Some(resync_number)) if failed.is_empty() && self.checkpoint.is_some() => {
                self.finish(request, resync_number)
            }
            _ => self.transaction_done(transaction, resync.is_some(), failed),
        }
    }

    /// The connection was lost, or timed out, while a part was on its way. Returns what to say of that.
    pub(super) fn transaction_failed(&mut self, under_way: &UnderWay, message: String) -> Result<Error> {
        let UnderWay { transaction, resync, .. } = under_way;
        if let Some(request) = resync {
            // It may be the org's own events: its next attempt waits, and the others go on.
            self.resyncs.interrupted(&request.org, Instant::now(), process::random());
            let org = &request.org;
            return Ok(Error::Redis(format!("{message}, while the stream of org \"{org}\" was made again")));
        }
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| transaction.entries > 0) else {
            return Ok(Error::Redis(message));
        };
        let (start, end) = (checkpoint.position, transaction.end.next);
        match &mut self.suspect {
            None => self.suspect = Some(Suspect::new(start, end)),
            Some(suspect) => {
                if suspect.failed(start, end, transaction.entries) {
                    let blamed = transaction.sender().map(|org| (org.to_owned(), message.clone()));
                    self.set_aside(blamed.into_iter().collect(), end)?;
                }
            }
        }
        Ok(Error::Redis(message))
    }

    /// Redis holds this checkpoint.
    pub(super) fn written(&mut self, checkpoint: Checkpoint) {
        self.suspect.take_if(|suspect| suspect.limit(checkpoint.position).is_none());
        self.checkpoint = Some(checkpoint);
        (self.proven, self.settled) = (true, true);
        self.heartbeat_at = Instant::now() + HEARTBEAT;
        self.publish();
    }

    /// Takes over the checkpoint of a part that was written. Returns the orgs it was not written for.
    pub(super) fn settle(
        &mut self,
        transaction: &RedisTransaction,
        replies: &[Value],
        checkpoint: Checkpoint,
        is_resync: bool,
    ) -> Result<Vec<(String, String)>> {
        match transaction.outcome(replies, &checkpoint.to_string()) {
            Outcome::Done(failed) => {
                self.written(checkpoint);
                Ok(failed)
            }
            Outcome::Aborted(failed) => {
                if is_resync {
                    self.resyncs_failed(&failed);
                } else {
                    // Nothing of it was written: once these orgs are set aside it is read again without them.
                    self.set_aside(failed, transaction.end.next)?;
                }
                self.forget_checkpoint();
                Ok(Vec::new())
            }
            Outcome::Overtaken => self.overtaken().map(|()| Vec::new()),
            Outcome::Refused(message) => Err(Error::Redis(message)),
        }
    }

    pub(super) fn count(&self, transaction: &RedisTransaction, resent: bool, is_resync: bool) {
        if self.checkpoint.is_none() {
            return;
        }
        self.slot.count(Counter::MirrorEntries, transaction.entries as u64);
        self.slot.count(Counter::MirrorPipelines, 1);
        if resent {
            self.slot.count(Counter::MirrorResent, transaction.entries as u64);
        }
        if !is_resync && transaction.entries > 0 {
            let lag = (time::now() / 1_000 - transaction.end.placed_ms).max(0).unsigned_abs();
            self.slot.histogram(Timer::MirrorLag).observe(Duration::from_millis(lag));
        }
    }

    pub(super) fn transaction_done(
        &mut self,
        transaction: RedisTransaction,
        is_resync: bool,
        failed: Vec<(String, String)>,
    ) -> Result<()> {
        if is_resync {
            self.resyncs_failed(&failed);
            return Ok(());
        }
        if !failed.is_empty() {
            // What was made ready meanwhile may have more of them.
            self.ready = None;
            self.read_position = transaction.end;
            self.more = true;
        }
        self.set_aside(failed, EventPosition::default())
    }

    /// These orgs go their own way until their streams were made again, and the others have come to the place behind what
    /// they failed for.
    pub(super) fn set_aside(&mut self, failed: Vec<(String, String)>, behind: EventPosition) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        self.orgs.forget();
        for (org, message) in &failed {
            pgrx::log!("tailstream mirror: the stream of org \"{org}\" has to be made again: {message}");
        }
        let requests = transaction::run(Isolation::ReadCommitted, || {
            snapshot::current(|| {
                for (org, _) in &failed {
                    state::request_resync(org, "failed")?;
                }
                state::resync_requests()
            })
        })?;
        self.resyncs.update(requests);
        for (org, _) in &failed {
            self.resyncs.failed(org, Instant::now(), process::random());
            self.resyncs.hold(org, behind);
        }
        Ok(())
    }
}
