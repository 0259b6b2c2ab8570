//! Streams made again from the table, beside the flow of the others.

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
use crate::metrics::counter::Counter;
use crate::metrics::shared::{self, Role};
use crate::pg::snapshot;
use crate::pg::time;
use crate::tier;
use crate::worker::process;
use crate::worker::transaction::{self, Isolation};

/// Numbers of resyncs that are reserved at a time.
const RESERVED: i64 = 1_000;

impl Replicator {
    /// Begins or continues with a stream to be made again; returns whether that gave an order.
    pub(super) fn continue_resync(&mut self, now: Instant) -> Result<bool> {
        let Some(resync) = self.resyncs.due(now) else { return Ok(false) };
        let (request, next) = (resync.request.clone(), resync.next);
        if self.ready.as_ref().is_some_and(|transaction| transaction.concerns(&request.org)) {
            // That was made ready before it was known that the stream is made again, and goes first.
            return Ok(false);
        }
        let Some(desired) = &self.desired else { return Ok(false) };
        let Some(next) = next else {
            let mut commands = Commands::default();
            commands.command(&["TYPE", &desired.template.key(&request.org)]);
            self.ask(Awaited::Kind(request), commands);
            return Ok(true);
        };
        self.send_resync(request, Some(next))
    }

    /// What is under the key is known: only a stream is ours to remove.
    pub(super) fn resync_kind_known(&mut self, request: ResyncRequest, replies: &[Value]) -> Result<()> {
        match replies.first().and_then(replies::text).as_deref() {
            Some("stream" | "none") => self.send_resync(request, None).map(drop),
            Some(other) => {
                self.resync_failed(&request.org, &format!("its key holds a {other} and no stream"));
                Ok(())
            }
            None => {
                self.resync_failed(&request.org, "what its key holds cannot be seen");
                Ok(())
            }
        }
    }

    /// Sends the next part of a stream, the first after removing the old stream. Returns whether there was any.
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
                    reader::next_of(org, &mut source, &mut next, before, from.is_none())?;
                Ok(Some((transaction, next, is_last)))
            })
        });
        match read {
            Ok(Some((transaction, next, is_last))) => {
                // The position that is being read may be its own, and begun before it was set aside; or the one that it was
                // set aside for is still to come.
                let not_before = self.resyncs.get(org).map(|resync| resync.not_before);
                let is_last = is_last
                    && self.read_position.inside.as_deref() != Some(org)
                    && not_before.is_none_or(|not_before| self.read_position.next >= not_before);
                if transaction.is_empty() && !is_last {
                    self.more = true;
                    self.make_ready()?;
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
            // Switched off meanwhile: its stream is left as it is.
            Ok(None) => self.finish(&request, 0).map(|()| false),
            Err(error) => match reader::take_failed() {
                Some((org, _)) => {
                    self.resync_failed(&org, &error.to_string());
                    Ok(false)
                }
                None => Err(error),
            },
        }
    }

    /// The number of the next resync. It is written down before Redis is given it.
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

    /// From the present position on the org follows the others again. Redis has what was done, under this number.
    pub(super) fn finish(&mut self, request: &ResyncRequest, resync_number: i64) -> Result<()> {
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
                // The same request still, for somebody is about to ask again: by then there is more to send.
                if self.resyncs.get(&request.org).is_some_and(|resync| resync.request == *request) {
                    self.resyncs.later(&request.org, Instant::now(), process::random());
                    return Ok(());
                }
            }
        }
        self.slot.count(Counter::MirrorRebuilds, 1);
        Ok(())
    }

    pub(super) fn resyncs_failed(&mut self, failed: &[(String, String)]) {
        for (org, message) in failed {
            self.resync_failed(org, message);
        }
    }

    pub(super) fn resync_failed(&mut self, org: &str, message: &str) {
        let message = format!("the stream of org \"{org}\" cannot be made again: {message}");
        shared::note_error(self.slot, Role::Mirror, time::to_postgres_time(time::now()), &message);
        self.resyncs.failed(org, Instant::now(), process::random());
    }
}
