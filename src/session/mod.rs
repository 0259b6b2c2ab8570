//! What a session may see: its binding to one org, and the views its queries are given.

pub mod barrier;
pub mod binding;
pub mod client;
mod rights;

use pgrx::prelude::*;

use crate::error::{Error, report};

#[pg_extern(sql = false)]
fn bound_org() -> Option<String> {
    binding::bound_org()
}

#[pg_extern(sql = false)]
fn session_unbound() -> bool {
    match binding::bound_org() {
        None if !rights::may_read() => Error::NotReader.raise(),
        None => true,
        Some(org) => Error::PlainView(org).raise(),
    }
}

#[pg_extern(sql = false)]
fn require_unbound() {
    report(binding::require_unbound());
}

#[pg_extern(sql = false)]
fn permitted_org(org: Option<&str>) -> &str {
    report(binding::permitted_org(org))
}
