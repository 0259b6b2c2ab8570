//! The configuration that the settings ask for.

use super::super::connection::Target;
use super::super::key::Template;
use super::super::{state, status};
use super::Replicator;
use crate::error::Result;
use crate::pg::snapshot;
use crate::worker::transaction::{self, Isolation};
use crate::{settings, tier};

/// The configuration of a mirror that is switched on.
#[derive(Clone, PartialEq, Eq)]
pub struct DesiredConfig {
    pub target: Target,
    pub template: Template,
}

impl Replicator {
    /// Reads the settings; `None` if the mirror is off. Records in the table when the mirror is switched off and on.
    pub(super) fn read_settings(&mut self) -> Result<Option<DesiredConfig>> {
        let enabled = settings::mirror_enabled();
        let target = Target::from_settings();
        let known = self.desired.is_some()
            && enabled
            && target.as_ref() == self.desired.as_ref().map(|desired| &desired.target);
        if known
            && self.desired.as_ref().is_some_and(|desired| desired.template.is_of(&settings::stream_key()))
        {
            return Ok(self.desired.clone());
        }
        if (enabled && target.is_none()) || (!enabled && self.pause_noted) {
            return Ok(None);
        }
        let desired = transaction::run(Isolation::ReadCommitted, || {
            tier::lookup::in_use()?;
            snapshot::current(|| {
                if enabled {
                    state::resume()?;
                } else {
                    state::pause()?;
                }
                let (true, Some(target)) = (enabled, target) else { return Ok(None) };
                let template = status::template()?;
                Ok(Some(DesiredConfig { target, template }))
            })
        })?;
        self.pause_noted = !enabled;
        Ok(desired)
    }
}
