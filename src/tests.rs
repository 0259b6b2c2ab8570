//! Tests of what lives inside one transaction.

use pgrx::prelude::*;

#[pg_test]
fn version_is_the_packages() {
    let version = Spi::get_one::<String>("SELECT ts_version()");
    assert_eq!(version, Ok(Some(env!("CARGO_PKG_VERSION").to_owned())));
}
