//! Access of a session: its binding to one org, and the view that its queries read.

pub mod client;
pub mod org_scope;
mod rights;
pub mod view_redirect;

use pgrx::prelude::*;

use crate::error::{Error, report};

#[pg_extern(sql = false)]
fn bound_org() -> Option<String> {
    org_scope::bound_org()
}

#[pg_extern(sql = false)]
fn session_unbound() -> bool {
    match org_scope::bound_org() {
        None if !rights::may_read() => Error::NotReader.raise(),
        None => true,
        Some(org) => Error::PlainView(org).raise(),
    }
}

#[pg_extern(sql = false)]
fn require_unbound() {
    report(org_scope::require_unbound());
}

#[pg_extern(sql = false)]
fn permitted_org(org: Option<&str>) -> &str {
    report(org_scope::permitted_org(org))
}
