//! The state of the mirror, for `ts_mirror_status()`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use super::key::Template;
use crate::error::{Error, Result, report};
use crate::shmem::counter::Counter;
use crate::shmem::{self, Role};
use crate::{metrics, settings};

/// `tailstream.mirror_progress()`
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn mirror_progress() -> TableIterator<
    'static,
    (
        name!(state, &'static str),
        name!(connected_since, Option<TimestampWithTimeZone>),
        name!(next_seq, Option<i64>),
        name!(next_offset, i32),
        name!(last_error, Option<String>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
        name!(entries_sent, i64),
        name!(entries_resent, i64),
        name!(entries_expired, i64),
        name!(retries, i64),
    ),
> {
    let Some(shared) = shmem::own() else { return report(Err(Error::NotPreloaded)) };
    let (next_seq, next_offset) = shared.progress.next_position();
    let (error, at) = shmem::last_error(shared, Role::Mirror).unzip();
    let counted = |counter| shared.counted(counter) as i64;
    TableIterator::once((
        shared.worker(Role::Mirror).state().name(),
        metrics::time(shared.progress.connected_since()),
        Some(next_seq).filter(|seq| *seq != 0),
        next_offset,
        error,
        at.and_then(metrics::time),
        counted(Counter::MirrorEntries),
        counted(Counter::MirrorResent),
        counted(Counter::MirrorExpired),
        counted(Counter::MirrorRetries),
    ))
}

/// `tailstream.stream_key(org text)`
#[pg_extern(sql = false)]
fn stream_key(org: &str) -> String {
    report(stream_key_of(org))
}

/// The key of an org's stream.
pub fn stream_key_of(org: &str) -> Result<String> {
    Ok(template()?.key(org))
}

/// Whether the settings switch the mirror on.
pub fn is_on() -> bool {
    settings::mirror_enabled() && !settings::redis_url().is_empty()
}

/// The template of keys in the settings.
pub fn template() -> Result<Template> {
    let template = Template::new(&settings::stream_key(), &metrics::database_name());
    template.ok_or_else(|| Error::Worker("tailstream.stream_key does not contain {org}".to_owned()))
}
