//! Before a new epoch: streams of orgs without events of the present are removed. They hold what another epoch left,
//! and the next event would be added to that.

use redis::Value;

use super::super::commands::Commands;
use super::super::marker::Marker;
use super::super::part::{self, Part};
use super::super::state;
use super::{Awaited, Pump};
use crate::error::Result;
use crate::statement::snapshot;
use crate::worker::transaction::{self, Isolation};

/// Orgs that are left to look at.
pub struct Clearing {
    marker: Marker,
    /// The last org that was looked at.
    after: String,
    /// The keys of this page.
    keys: Vec<String>,
}

impl Pump {
    /// Looks at all orgs, and then writes the new marker.
    pub(super) fn begin_clearing(&mut self, marker: Marker) -> Result<()> {
        self.clear_behind(Clearing { marker, after: String::new(), keys: Vec::new() })
    }

    /// Asks what is under the keys of the next orgs.
    fn clear_behind(&mut self, mut clearing: Clearing) -> Result<()> {
        let Some(wish) = &self.wish else { return Ok(()) };
        let orgs = transaction::run(Isolation::ReadCommitted, || {
            snapshot::current(|| state::orgs_without_rebuild(&clearing.after))
        })?;
        let Some(last) = orgs.last() else {
            self.link.run(Part::default().pack(&self.marker_key, &clearing.marker));
            self.awaited = Some(Awaited::NewEpoch(clearing.marker));
            return Ok(());
        };
        clearing.after.clone_from(last);
        clearing.keys = orgs.iter().map(|org| wish.template.key(org)).collect();
        let mut commands = Commands::default();
        for key in &clearing.keys {
            commands.command(&["TYPE", key]);
        }
        self.ask(Awaited::Kinds(clearing), commands);
        Ok(())
    }

    /// Removes those that are streams, and no others.
    pub(super) fn clear_streams(&mut self, clearing: Clearing, replies: &[Value]) -> Result<()> {
        let mut commands = Commands::default();
        for (key, kind) in clearing.keys.iter().zip(replies) {
            if part::text(kind).as_deref() == Some("stream") {
                commands.command(&["DEL", key]);
            }
        }
        if commands.count() == 0 {
            return self.clear_behind(clearing);
        }
        self.ask(Awaited::Cleared(clearing), commands);
        Ok(())
    }

    /// Goes on, unless Redis refused: then the epoch begins again, later.
    pub(super) fn streams_cleared(&mut self, clearing: Clearing, replies: &[Value]) -> Result<()> {
        part::first_error(replies)?;
        self.clear_behind(clearing)
    }
}
