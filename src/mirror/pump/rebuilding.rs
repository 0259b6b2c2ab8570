//! Streams made again from the table, beside the flow of the others.

use std::time::Instant;

use redis::Value;

use super::super::commands::Commands;
use super::super::feed::{self, Source};
use super::super::marker::Cursor;
use super::super::part;
use super::super::state::{self, Request};
use super::{Awaited, Pump};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::metrics::counter::Counter;
use crate::metrics::shared::{self, Role};
use crate::statement::snapshot;
use crate::worker::process;
use crate::worker::transaction::{self, Isolation};
use crate::{ingest, tier};

impl Pump {
    /// Begins or continues with a stream to be made again; returns whether that gave an order.
    pub(super) fn order_rebuild(&mut self, now: Instant) -> Result<bool> {
        let Some(rebuild) = self.rebuilds.due(now) else { return Ok(false) };
        let (request, cursor) = (rebuild.request.clone(), rebuild.cursor);
        let Some(wish) = &self.wish else { return Ok(false) };
        let Some(cursor) = cursor else {
            let mut commands = Commands::default();
            commands.command(&["TYPE", &wish.template.key(&request.org)]);
            self.ask(Awaited::Kind(request), commands);
            return Ok(true);
        };
        self.send_rebuild(request, Some(cursor))
    }

    /// What is under the key is known: only a stream is ours to remove.
    pub(super) fn rebuild(&mut self, request: Request, replies: &[Value]) -> Result<()> {
        match replies.first().and_then(part::text).as_deref() {
            Some("stream" | "none") => self.send_rebuild(request, None).map(drop),
            Some(other) => {
                self.rebuild_failed(&request.org, &format!("its key holds a {other} and no stream"));
                Ok(())
            }
            None => {
                self.rebuild_failed(&request.org, "what its key holds cannot be seen");
                Ok(())
            }
        }
    }

    /// Sends the next part of a stream, the first after removing the old stream. Returns whether there was any.
    pub(super) fn send_rebuild(&mut self, request: Request, cursor: Option<Cursor>) -> Result<bool> {
        let Some(wish) = &self.wish else { return Ok(false) };
        let (template, before, org) = (wish.template.clone(), self.reading.cursor.seq, request.org.as_str());
        let read = transaction::run(Isolation::ReadCommitted, || {
            tier::lookup::in_use()?;
            snapshot::current(|| {
                self.orgs.refresh()?;
                let mirrored = self.orgs.get(org)?.is_some_and(|mirrored| mirrored.is_on());
                if !mirrored && request.reason != "erased" {
                    return Ok(None);
                }
                let start = match cursor {
                    Some(cursor) => Some(cursor),
                    None => state::stream_start(org, before)?,
                };
                let mut next = start.unwrap_or(Cursor::before(before));
                let mut source = Source {
                    orgs: &mut self.orgs,
                    template: &template,
                    rebuilding: &|_| false,
                    after_seq: 0,
                };
                let part = feed::next_of(org, &mut source, &mut next, before, cursor.is_none())?;
                Ok(Some((part, next)))
            })
        });
        match read {
            Ok(Some((part, next))) if !part.is_empty() => {
                let org = org.to_owned();
                let sent = self.send(part, Some(request));
                if let Some(rebuild) = self.rebuilds.get(&org).filter(|_| sent) {
                    rebuild.cursor = Some(next);
                }
                Ok(sent)
            }
            Ok(_) if self.reading.inside.as_deref() == Some(org) => {
                // The position that is being read is its own, and was begun before it was set aside.
                self.more = true;
                self.make_ready()?;
                Ok(false)
            }
            Ok(_) => self.finish(&request).map(|()| false),
            Err(error) => match feed::take_failed() {
                Some(org) => {
                    self.rebuild_failed(&org, &error.to_string());
                    Ok(false)
                }
                None => Err(error),
            },
        }
    }

    /// From the present position on the org follows the others again.
    pub(super) fn finish(&mut self, request: &Request) -> Result<()> {
        failpoint("mirror-rebuilt");
        let again = transaction::run(Isolation::ReadCommitted, || {
            snapshot::current(|| match state::rebuilt(request)? {
                true => Ok(None),
                false => state::rebuilds().map(Some),
            })
        })?;
        match again {
            None => self.rebuilds.finished(&request.org),
            Some(requests) => {
                self.rebuilds.update(requests);
                // The same request still, for somebody is about to ask again: by then there is more to send.
                if self.rebuilds.get(&request.org).is_some_and(|rebuild| rebuild.request == *request) {
                    self.rebuilds.later(&request.org, Instant::now(), process::random());
                    return Ok(());
                }
            }
        }
        self.slot.count(Counter::MirrorRebuilds, 1);
        Ok(())
    }

    pub(super) fn rebuilds_failed(&mut self, failed: &[(String, String)]) {
        for (org, message) in failed {
            self.rebuild_failed(org, message);
        }
    }

    pub(super) fn rebuild_failed(&mut self, org: &str, message: &str) {
        let message = format!("the stream of org \"{org}\" cannot be made again: {message}");
        shared::note_error(self.slot, Role::Mirror, tier::to_postgres_time(ingest::now()), &message);
        self.rebuilds.failed(org, Instant::now(), process::random());
    }
}
