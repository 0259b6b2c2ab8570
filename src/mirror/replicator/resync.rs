//! Resyncs, which run beside the backlog.

use std::time::Instant;

use redis::Value;

use super::super::commands::Commands;
use super::super::position::EventPosition;
use super::super::reader::{self, Source};
use super::super::replies;
use super::super::state::{self, ResyncRequest};
use super::super::stream_contents;
use super::{Awaited, Replicator};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::pg::snapshot;
use crate::pg::time;
use crate::shmem::counter::Counter;
use crate::shmem::{self, Role};
use crate::tier;
use crate::worker::process;
use crate::worker::transaction::{self, Isolation};

/// The number of resync numbers that are reserved at a time.
const RESERVED: i64 = 1_000;

impl Replicator {
    /// Starts or continues a resync. Returns whether a request was sent.
    pub(super) fn continue_resync(&mut self, now: Instant) -> Result<bool> {
        let Some(resync) = self.resyncs.due(now) else { return Ok(false) };
        let (request, next) = (resync.request.clone(), resync.next);
        if self.ready.as_ref().is_some_and(|transaction| transaction.concerns(&request.org)) {
            // That transaction was read before the resync was requested, and must be sent first.
            return Ok(false);
        }
        let Some(desired) = &self.desired else { return Ok(false) };
        let Some(next) = next else {
            let mut commands = Commands::default();
            commands.command(&["TYPE", &desired.template.key(&request.org)]);
            self.query(Awaited::KeyType(request), commands);
            return Ok(true);
        };
        self.send_resync(request, Some(next))
    }

    /// Handles the type of the key of the stream. The mirror replaces only streams, and no keys of other types.
    pub(super) fn start_resync(&mut self, request: ResyncRequest, replies: &[Value]) -> Result<()> {
        match replies.first().and_then(replies::text).as_deref() {
            Some("stream" | "none") => self.send_resync(request, None).map(drop),
            Some(other) => {
                self.resync_failed(&request.org, &format!("its key holds a {other}, not a stream"));
                Ok(())
            }
            None => {
                self.resync_failed(&request.org, "the type of its key cannot be read");
                Ok(())
            }
        }
    }

    /// Sends the next transaction of a resync that continues at `from`; `None` starts it with the removal of the old
    /// stream. Returns whether anything was sent.
    pub(super) fn send_resync(
        &mut self,
        request: ResyncRequest,
        from: Option<EventPosition>,
    ) -> Result<bool> {
        let Some(desired) = &self.desired else { return Ok(false) };
        let (template, before, org) =
            (desired.template.clone(), self.read_position.next.seq, request.org.as_str());
        let read = transaction::run(Isolation::ReadCommitted, || {
            tier::lookup::in_use()?;
            snapshot::current(|| {
                self.orgs.refresh()?;
                let mirrored = self.orgs.get(org)?.is_some_and(|mirrored| mirrored.is_on());
                if !mirrored && request.reason != "erased" {
                    return Ok(None);
                }
                let start = match from {
                    Some(from) => Some(from),
                    None => stream_contents::start(org, before)?,
                };
                let mut next = start.unwrap_or(EventPosition::before(before));
                let mut source = Source {
                    orgs: &mut self.orgs,
                    template: &template,
                    is_resyncing: &|_| false,
                    after_seq: 0,
                    registry: &self.keys.registry,
                    limits: self.limits,
                };
                let (transaction, is_last) =
                    reader::next_resync_transaction(org, &mut source, &mut next, before, from.is_none())?;
                Ok(Some((transaction, next, is_last)))
            })
        });
        match read {
            Ok(Some((transaction, next, is_last))) => {
                // The org cannot follow the backlog yet if the backlog is inside one of its batches, which was begun
                // before the org was set aside, or has not reached the position that the org was set aside for.
                let not_before = self.resyncs.get(org).map(|resync| resync.not_before);
                let is_last = is_last
                    && self.read_position.inside.as_deref() != Some(org)
                    && not_before.is_none_or(|not_before| self.read_position.next >= not_before);
                if transaction.is_empty() && !is_last {
                    self.more = true;
                    self.read_next()?;
                    return Ok(false);
                }
                let org = org.to_owned();
                let resync_number = if is_last { Some(self.next_resync()?) } else { None };
                let sent = self.send(transaction, Some(request), resync_number);
                if let Some(resync) = self.resyncs.get(&org).filter(|_| sent) {
                    resync.next = Some(next);
                }
                Ok(sent)
            }
            // The org was switched off in the meantime: its stream stays as it is.
            Ok(None) => self.finish_resync(&request, 0).map(|()| false),
            Err(error) => match reader::take_failed_read() {
                Some((org, _)) => {
                    self.resync_failed(&org, &error.to_string());
                    Ok(false)
                }
                None => Err(error),
            },
        }
    }

    /// The number of the next resync. It is reserved in the table before it is sent to Redis.
    fn next_resync(&mut self) -> Result<i64> {
        if let Some(number) = self.resync_numbers.next() {
            return Ok(number);
        }
        let last = transaction::run(Isolation::ReadCommitted, || {
            snapshot::current(|| state::reserve_resyncs(RESERVED))
        })?;
        failpoint("mirror-reserved");
        self.resync_numbers = last - RESERVED + 2..last + 1;
        Ok(last - RESERVED + 1)
    }

    /// Ends a resync that Redis has under this number. From now on, the org follows the backlog again.
    pub(super) fn finish_resync(&mut self, request: &ResyncRequest, resync_number: i64) -> Result<()> {
        failpoint("mirror-resynced");
        let again = transaction::run(Isolation::ReadCommitted, || {
            snapshot::current(|| match state::finish_resync(request, resync_number)? {
                true => Ok(None),
                false => state::resync_requests().map(Some),
            })
        })?;
        match again {
            None => self.resyncs.finished(&request.org),
            Some(requests) => {
                self.resyncs.update(requests);
                // The request is unchanged, because another transaction has locked it and has not committed its own
                // request yet. The resync continues later, when there will be more to send.
                if self.resyncs.get(&request.org).is_some_and(|resync| resync.request == *request) {
                    self.resyncs.postpone(&request.org, Instant::now(), process::random());
                    return Ok(());
                }
            }
        }
        self.shared.count(Counter::MirrorResyncs, 1);
        Ok(())
    }

    pub(super) fn resyncs_failed(&mut self, failed: &[(String, String)]) {
        for (org, message) in failed {
            self.resync_failed(org, message);
        }
    }

    pub(super) fn resync_failed(&mut self, org: &str, message: &str) {
        let message = format!("the stream of org \"{org}\" cannot be written again: {message}");
        shmem::record_error(self.shared, Role::Mirror, time::to_postgres_time(time::now()), &message);
        self.resyncs.failed(org, Instant::now(), process::random());
    }
}
