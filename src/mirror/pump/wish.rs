//! What the settings ask of the mirror.

use super::super::key::Template;
use super::super::link::Target;
use super::super::{state, status};
use super::Pump;
use crate::error::Result;
use crate::statement::snapshot;
use crate::worker::transaction::{self, Isolation};
use crate::{settings, tier};

/// What the settings ask for.
#[derive(Clone, PartialEq, Eq)]
pub struct Wish {
    pub target: Target,
    pub template: Template,
}

impl Pump {
    /// What is wanted now. Also notes in the table when the mirror is switched off and on.
    pub(super) fn heed_settings(&mut self) -> Result<Option<Wish>> {
        let enabled = settings::mirror_enabled();
        let target = Target::from_settings();
        let known =
            self.wish.is_some() && enabled && target.as_ref() == self.wish.as_ref().map(|wish| &wish.target);
        if known && self.wish.as_ref().is_some_and(|wish| wish.template.is_of(&settings::stream_key())) {
            return Ok(self.wish.clone());
        }
        if (enabled && target.is_none()) || (!enabled && self.pause_noted) {
            return Ok(None);
        }
        let wish = transaction::run(Isolation::ReadCommitted, || {
            tier::lookup::in_use()?;
            snapshot::current(|| {
                if enabled {
                    state::resume()?;
                } else {
                    state::pause()?;
                }
                let (true, Some(target)) = (enabled, target) else { return Ok(None) };
                let template = status::template()?;
                Ok(Some(Wish { target, template }))
            })
        })?;
        self.pause_noted = !enabled;
        Ok(wish)
    }
}
