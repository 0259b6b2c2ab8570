//! Transactions of the backlog: reading, sending and confirming them.

use std::time::{Duration, Instant};

use redis::Value;

use super::super::checkpoint::Checkpoint;
use super::super::entry::{Oversized, stream_id};
use super::super::position::EventPosition;
use super::super::reader::{self, Source};
use super::super::redis_transaction::{Outcome, RedisTransaction};
use super::super::state::{self, ResyncRequest};
use super::suspect::Suspect;
use super::{Awaited, HEARTBEAT, InFlight, Replicator};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::pg::snapshot;
use crate::pg::time;
use crate::shmem::counter::{Counter, Timer};
use crate::shmem::{self, Role};
use crate::tier;
use crate::worker::process;
use crate::worker::transaction::{self, Isolation};

impl Replicator {
    /// Reads the next transaction, unless one is ready or there are no new positions.
    pub(super) fn read_next(&mut self) -> Result<()> {
        if self.checkpoint.is_none() || self.ready.as_ref().is_some_and(|transaction| !transaction.is_empty())
        {
            return Ok(());
        }
        if matches!(&self.awaited, Some(Awaited::Transaction(in_flight)) if in_flight.resync_number.is_some())
        {
            // A resync is about to end at the present read position, which must therefore not move.
            return Ok(());
        }
        let requests = self.shared.progress.org_changes();
        let requested = self.requests_seen != requests;
        let placed = self.shared.progress.last_seq() >= self.read_position.next.seq;
        if !self.more && !requested && !placed {
            return Ok(());
        }
        self.requests_seen = requests;
        let Some(desired) = &self.desired else { return Ok(()) };
        let (template, after_seq, positions) = (desired.template.clone(), self.after_seq, self.positions);
        let mut read_position = self.read_position.clone();
        let mut limits = self.limits;
        if let Some(events) = self.suspect.as_ref().and_then(|suspect| suspect.limit(read_position.next)) {
            limits.events = limits.events.min(events);
        }
        let result = transaction::run(Isolation::ReadCommitted, || {
            if tier::lookup::positions()? != positions {
                // The tables were replaced since the read position was determined. This is handled like a missing
                // extension.
                return Err(Error::StorageMissing);
            }
            snapshot::current(|| {
                // Another caller of `refresh` may have consumed the change, so the counter of requests is compared as
                // well.
                if self.orgs.refresh()? || requested {
                    self.resyncs.update(state::resync_requests()?);
                    self.trim_at = Instant::now();
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
                reader::next_transaction(&mut source, &mut read_position)
            })
        });
        match result {
            Ok((transaction, more)) => {
                self.shared.count(Counter::MirrorExpired, transaction.expired);
                (self.read_position, self.more) = (read_position, more);
                self.ready = Some(transaction);
                self.publish_position();
                Ok(())
            }
            Err(error) => match reader::take_failed_read() {
                // The events of one org cannot be read. The other orgs continue without it.
                Some((org, seq)) => {
                    self.set_aside(vec![(org, error.to_string())], EventPosition::before(seq + 1))
                }
                None => Err(error),
            },
        }
    }

    /// Publishes the position before which everything was sent. A transaction that is ready or in flight counts as not
    /// sent.
    pub(super) fn publish_position(&self) {
        let in_flight =
            matches!(&self.awaited, Some(Awaited::Transaction(in_flight)) if in_flight.resync.is_none());
        let ready = self.ready.as_ref().is_some_and(|transaction| !transaction.is_empty());
        let next = match &self.checkpoint {
            Some(checkpoint) if in_flight || ready => checkpoint.position,
            _ => self.read_position.next,
        };
        self.shared.progress.set_next_position(next.seq, next.offset);
    }

    /// Sends a transaction, unless the checkpoint is unknown. `resync` is the request that the transaction belongs to,
    /// and `resync_number` the number of the resync if this is its last transaction. Returns whether the transaction
    /// was sent.
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
        let resent = resync.is_some() || transaction.end.next <= self.furthest_sent;
        if resync.is_none() {
            self.furthest_sent = self.furthest_sent.max(transaction.end.next);
        }
        self.report_oversized(&transaction);
        failpoint("mirror-before-send");
        self.connection.run(transaction.pack(&self.keys, &checkpoint.to_string()));
        failpoint("mirror-sent");
        let since = Instant::now();
        self.awaited = Some(Awaited::Transaction(Box::new(InFlight {
            transaction,
            checkpoint,
            since,
            resent,
            resync,
            resync_number,
        })));
        true
    }

    /// Logs the events that are left out because they are too large for Redis.
    fn report_oversized(&mut self, transaction: &RedisTransaction) {
        for Oversized { org, event_id, bytes, ms, seq } in &transaction.oversized {
            let message = format!(
                "event {event_id} of org \"{org}\" is left out of its stream: it has {bytes} bytes as JSON, and Redis accepts at most {}",
                self.limits.entry
            );
            pgrx::log!("tailstream mirror: {message}");
            shmem::record_error(self.shared, Role::Mirror, time::to_postgres_time(time::now()), &message);
            self.last_oversized.insert(org.clone(), stream_id(*ms, *seq));
        }
        self.shared.count(Counter::MirrorOversized, transaction.oversized.len() as u64);
    }

    /// Handles the replies to a transaction.
    pub(super) fn transaction_answered(&mut self, in_flight: InFlight, replies: &[Value]) -> Result<()> {
        let InFlight { transaction, checkpoint, since, resent, resync, resync_number } = in_flight;
        failpoint("mirror-answered");
        self.shared.histogram(Timer::MirrorTransaction).observe(since.elapsed());
        let outcome = self.handle_outcome(&transaction, replies, checkpoint, resync.is_some());
        if let (Err(_), Some(request)) = (&outcome, &resync) {
            // The next attempt starts from the beginning. Its first transaction may succeed each time, so the
            // interruptions are counted here.
            self.resyncs.interrupted(&request.org, Instant::now(), process::random());
        }
        let failed = outcome?;
        self.count_sent(&transaction, resent, resync.is_some());
        match (&resync, resync_number) {
            (Some(request), Some(resync_number)) if failed.is_empty() && self.checkpoint.is_some() => {
                self.finish_resync(request, resync_number)
            }
            _ => self.transaction_written(transaction, resync.is_some(), failed),
        }
    }

    /// Handles the loss of the connection, or a timeout, while a transaction was in flight. Returns the error to
    /// report.
    pub(super) fn transaction_failed(&mut self, in_flight: &InFlight, message: String) -> Result<Error> {
        let InFlight { transaction, resync, .. } = in_flight;
        if let Some(request) = resync {
            // The org's own events may be the cause. Its next attempt waits, while the other orgs continue.
            self.resyncs.interrupted(&request.org, Instant::now(), process::random());
            let org = &request.org;
            return Ok(Error::Redis(format!(
                "{message}, while the stream of org \"{org}\" was being written again"
            )));
        }
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| transaction.entries > 0) else {
            return Ok(Error::Redis(message));
        };
        let (start, end) = (checkpoint.position, transaction.end.next);
        match &mut self.suspect {
            None => self.suspect = Some(Suspect::new(start, end)),
            Some(suspect) => {
                if suspect.failed(start, end, transaction.entries) {
                    let failed = transaction.last_org().map(|org| (org.to_owned(), message.clone()));
                    self.set_aside(failed.into_iter().collect(), end)?;
                }
            }
        }
        Ok(Error::Redis(message))
    }

    /// Takes over a checkpoint that Redis has confirmed.
    pub(super) fn checkpoint_written(&mut self, checkpoint: Checkpoint) {
        self.suspect.take_if(|suspect| suspect.limit(checkpoint.position).is_none());
        self.checkpoint = Some(checkpoint);
        (self.write_succeeded, self.succeeded) = (true, true);
        self.heartbeat_at = Instant::now() + HEARTBEAT;
        self.publish_position();
    }

    /// Evaluates the replies to a transaction. Returns the orgs whose commands were not executed, each with the message
    /// of Redis.
    pub(super) fn handle_outcome(
        &mut self,
        transaction: &RedisTransaction,
        replies: &[Value],
        checkpoint: Checkpoint,
        is_resync: bool,
    ) -> Result<Vec<(String, String)>> {
        match transaction.outcome(replies, &checkpoint.to_string()) {
            Outcome::Done(failed) => {
                self.checkpoint_written(checkpoint);
                Ok(failed)
            }
            Outcome::Aborted(failed) => {
                if is_resync {
                    self.resyncs_failed(&failed);
                } else {
                    // Nothing was written. The transaction is read again without these orgs.
                    self.set_aside(failed, transaction.end.next)?;
                }
                self.forget_checkpoint();
                Ok(Vec::new())
            }
            Outcome::Overtaken => self.overtaken().map(|()| Vec::new()),
            Outcome::Refused(message) => Err(Error::Redis(message)),
        }
    }

    pub(super) fn count_sent(&self, transaction: &RedisTransaction, resent: bool, is_resync: bool) {
        if self.checkpoint.is_none() {
            return;
        }
        self.shared.count(Counter::MirrorEntries, transaction.entries as u64);
        self.shared.count(Counter::MirrorTransactions, 1);
        if resent {
            self.shared.count(Counter::MirrorResent, transaction.entries as u64);
        }
        if !is_resync && transaction.entries > 0 {
            let lag = (time::now() / 1_000 - transaction.end.placed_ms).max(0).unsigned_abs();
            self.shared.histogram(Timer::MirrorLag).observe(Duration::from_millis(lag));
        }
    }

    pub(super) fn transaction_written(
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
            // The transaction that was read in the meantime may contain more events of these orgs.
            self.ready = None;
            self.read_position = transaction.end;
            self.more = true;
        }
        self.set_aside(failed, EventPosition::default())
    }

    /// Requests resyncs for these orgs, and skips the orgs until these are done. A resync cannot end before the backlog
    /// has reached `behind`, the position after the events that failed.
    pub(super) fn set_aside(&mut self, failed: Vec<(String, String)>, behind: EventPosition) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        self.orgs.forget();
        for (org, message) in &failed {
            pgrx::log!("tailstream mirror: the stream of org \"{org}\" must be written again: {message}");
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
            self.resyncs.hold_until(org, behind);
        }
        Ok(())
    }
}
