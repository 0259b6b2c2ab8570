//! Client-side tooling behind Tailstream's make targets: private PostgreSQL clusters, private Redis
//! servers, access logs, generated traffic, and installing the extension. The demo, the end-to-end
//! tests and the benchmark are built on it.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod access_log;
pub mod cluster;
pub mod event;
pub mod extension;
pub mod postgres_install;
pub mod process;
pub mod redis;
pub mod repository;
pub mod server_user;
pub mod traffic;

pub use self::redis::{Redis, RedisBuilder};
pub use cluster::{Cluster, ClusterBuilder};
pub use event::Event;
