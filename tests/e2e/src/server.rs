//! Servers: one for the tests of a binary, or one of a test's own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use tailstream_devkit::{Cluster, ClusterBuilder, Redis};

/// The libraries of a server as it should be.
pub const PRELOAD: [&str; 3] = ["timescaledb", "tailstream", "pg_cron"];

/// The shared servers of this process by name. A static is never dropped: see `stop_at_exit`.
static SHARED: Mutex<Option<HashMap<&'static str, Arc<Cluster>>>> = Mutex::new(None);
static SHARED_REDIS: Mutex<Option<HashMap<&'static str, Arc<Redis>>>> = Mutex::new(None);
static EXIT_HOOKS: Once = Once::new();
static FAILED: AtomicBool = AtomicBool::new(false);

/// A running server, shared by the tests of one binary.
#[derive(Debug, Clone)]
pub struct Server {
    pub cluster: Arc<Cluster>,
}

impl Server {
    /// The server of this test binary, with everything preloaded.
    pub fn shared(name: &'static str) -> Self {
        Self::shared_with(name, |builder| builder.preload(&PRELOAD))
    }

    /// The server of this name, made by `describe` when it is asked for first. It is stopped when
    /// the process exits; its files stay if a test failed.
    pub fn shared_with(name: &'static str, describe: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        EXIT_HOOKS.call_once(stop_at_exit);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = shared.get_or_insert_default();
        let cluster = servers.entry(name).or_insert_with(|| Arc::new(Self::create(name, describe)));
        Self { cluster: Arc::clone(cluster) }
    }

    /// The Redis server of this name, made when it is asked for first and stopped with the others.
    pub fn shared_redis(name: &'static str) -> Arc<Redis> {
        EXIT_HOOKS.call_once(stop_at_exit);
        let mut shared = SHARED_REDIS.lock().unwrap_or_else(PoisonError::into_inner);
        let create = || Redis::builder(&format!("e2e-{name}")).create().expect("a Redis server");
        Arc::clone(shared.get_or_insert_default().entry(name).or_insert_with(|| Arc::new(create())))
    }

    /// A server of a test's own.
    pub fn create(name: &str, describe: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Cluster {
        // A test makes and breaks much, and what it breaks on purpose must not wait for the disk.
        let builder = Cluster::builder(&format!("e2e-{name}"))
            .setting("max_connections", "60")
            .setting("shared_buffers", "64MB")
            .setting("autovacuum_naptime", "5s");
        describe(builder).create().expect("a server")
    }
}

/// Stops the shared servers when the process exits, whether its tests passed or not.
fn stop_at_exit() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        FAILED.store(true, Ordering::Relaxed);
        report(panic);
    }));
    extern "C" fn stop() {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, cluster) in shared.take().into_iter().flatten() {
            if FAILED.load(Ordering::Relaxed) {
                if let Err(error) = cluster.stop() {
                    eprintln!("server {name}: {error:#}");
                }
                eprintln!("server {name}: its log is {}", cluster.log_path().display());
                std::mem::forget(cluster);
            }
        }
        drop(SHARED_REDIS.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    // SAFETY: the handler takes nothing, does not unwind, and lives as long as the process.
    unsafe { libc::atexit(stop) };
}
