//! Every setting of the extension, with its unit, range, default and the reason for that default.
//!
//! A setting that promises something about stored data has one value for the whole server (`Sighup`): one session stores
//! by it and another one purges by it, and the two must not differ. A setting that only says how its own session works,
//! or what that session may do, can be set per role (`Suset`, `Userset`).

mod secret;

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::pg_sys;

/// The write path of ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum IngestLane {
    /// Direct wherever that is safe, otherwise through the executor.
    #[name = c"auto"]
    Auto,
    /// Always `INSERT` through the executor.
    #[name = c"executor"]
    Executor,
    /// As `auto`; a separate name for comparisons.
    #[name = c"direct"]
    Direct,
}

/// Org the session is bound to; empty binds to none. Superuser-only, or a role could unbind itself.
static ORG: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// How often that was set. Read for every row of a replay, hence no thread-local.
static ORG_CHANGES: AtomicU64 = AtomicU64::new(0);

/// Seconds, 0 to 1 day, default 5 minutes: more than synchronised clocks differ, and little enough that an event still appears
/// in a view of the present.
static MAX_FUTURE_SKEW: GucSetting<i32> = GucSetting::<i32>::new(300);

/// Seconds, 0 to 30 days, default 24 hours: a producer that is down over night may still repeat its batch.
static IDEMPOTENCY_WINDOW: GucSetting<i32> = GucSetting::<i32>::new(24 * 3600);

/// Default on: an org exists from its first event on.
static AUTO_REGISTER_ORGS: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Default auto.
static INGEST_LANE: GucSetting<IngestLane> = GucSetting::<IngestLane>::new(IngestLane::Auto);

/// Seconds, 1 hour to 10 years, default 7 days: enough to find out why a producer's events are rejected.
static REJECTED_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 3600);

/// Milliseconds, 1 to 1 minute, default 100: readers queue behind a waiting purge, so it may delay a query by this long.
static PURGE_LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(100);

/// Seconds, 0 to 10 years, 0 for no limit, default 7 days: the longest retention of the predefined tiers.
static CURSOR_TTL: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 3600);

/// 0 to 2,147,483,647, 0 for no limit, default 10,000: more consumers than an org needs, too few to fill a disk.
static MAX_CURSORS_PER_ORG: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// Names separated by commas, default none: workers run only in databases that are named here.
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Always empty, see `secret`. Default none: the sequencer works without Redis.
static REDIS_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// A path, default none. A password in a file never appears in a view, a dump or a log of PostgreSQL.
static REDIS_PASSWORD_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// A path, default none: the certificates that the system trusts.
static REDIS_CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Milliseconds, 100 to 10 minutes, default 5 seconds: longer than Redis needs to fork for a snapshot of many gigabytes,
/// short enough to notice one that hangs.
static REDIS_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);

/// Default on; without a URL it does nothing.
static MIRROR_ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);

/// `{org}` stands for the org id, `{database}` for the database's name.
static STREAM_KEY: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"tailstream:stream:{org}"));

/// The failpoint at which a worker ends, and at which pass: "name:3". For tests.
#[cfg(feature = "failpoints")]
static FAILPOINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Registers all settings with PostgreSQL.
pub fn init() {
    // SAFETY: the hook is guarded and only marks plans as stale.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"tailstream.org",
            c"The org that the session is bound to; empty for none.",
            c"A bound session sees and writes that org alone. Set it for a role: ALTER ROLE … SET tailstream.org = '…'.",
            &ORG,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(org_assigned),
            None,
        );
    }
    define_ingest_settings();
    define_mirror_settings();
    GucRegistry::define_int_guc(
        c"tailstream.rejected_retention",
        c"How long quarantined events are kept.",
        c"ts_apply_retention() purges them in whole days.",
        &REJECTED_RETENTION,
        3600,
        10 * 365 * 24 * 3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"tailstream.cursor_ttl",
        c"How long an unused durable cursor is kept.",
        c"0 means no limit. ts_apply_retention() removes expired cursors.",
        &CURSOR_TTL,
        0,
        10 * 365 * 24 * 3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"tailstream.max_cursors_per_org",
        c"How many durable cursors an org may have.",
        c"0 means no limit. Expired cursors do not count.",
        &MAX_CURSORS_PER_ORG,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"tailstream.purge_lock_timeout",
        c"How long the purge waits for a chunk that is in use.",
        c"Queries that start meanwhile wait as long. The next purge tries the chunk again.",
        &PURGE_LOCK_TIMEOUT,
        1,
        60_000,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    // SAFETY: the argument is a C string constant.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"tailstream".as_ptr()) };
}

fn define_ingest_settings() {
    GucRegistry::define_int_guc(
        c"tailstream.max_future_skew",
        c"How far ahead of the server's clock an event's time may be.",
        c"An event with a later time is invalid.",
        &MAX_FUTURE_SKEW,
        0,
        24 * 3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"tailstream.idempotency_window",
        c"How long an idempotency key is remembered.",
        c"A batch repeated with the same key inside the window is not stored again.",
        &IDEMPOTENCY_WINDOW,
        0,
        30 * 24 * 3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"tailstream.auto_register_orgs",
        c"Whether an unknown org is registered by its first batch.",
        c"If off, the org must be registered with ts_set_org_tier() first.",
        &AUTO_REGISTER_ORGS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"tailstream.ingest_lane",
        c"How rows are written: auto, executor or direct.",
        c"direct and auto use the executor where writing to the chunk directly would not be safe.",
        &INGEST_LANE,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn define_mirror_settings() {
    #[cfg(feature = "failpoints")]
    GucRegistry::define_string_guc(
        c"tailstream.failpoint",
        c"The failpoint at which a worker ends.",
        c"For tests.",
        &FAILPOINT,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"tailstream.databases",
        c"The databases that have a sequencer and a mirror.",
        c"Names separated by commas.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // SAFETY: the hooks are guarded and keep to PostgreSQL's rules for such hooks.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"tailstream.redis_url",
            c"The Redis server that events are mirrored to.",
            c"redis://host:port/number, rediss:// for TLS, redis+unix:///path. Empty: no mirror.",
            &REDIS_URL,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
            Some(secret::check),
            Some(secret::assign),
            Some(secret::show),
        );
    }
    let files = [
        (
            c"tailstream.redis_password_file",
            c"The file that holds the password for Redis.",
            c"The first line is used. It takes precedence over a password in tailstream.redis_url.",
            &REDIS_PASSWORD_FILE,
        ),
        (
            c"tailstream.redis_ca_file",
            c"The file with the CA certificates for the connection to Redis.",
            c"PEM; for rediss:// URLs. Empty: the CA certificates of the system.",
            &REDIS_CA_FILE,
        ),
    ];
    for (name, short, long, setting) in files {
        let flags = GucFlags::SUPERUSER_ONLY;
        GucRegistry::define_string_guc(name, short, long, setting, GucContext::Sighup, flags);
    }
    GucRegistry::define_int_guc(
        c"tailstream.redis_timeout",
        c"How long to wait for a reply of Redis.",
        c"After that, the connection is closed and made again.",
        &REDIS_TIMEOUT,
        100,
        600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"tailstream.mirror_enabled",
        c"Whether events are mirrored to Redis.",
        c"After it is switched on again, the streams start with new events.",
        &MIRROR_ENABLED,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"tailstream.stream_key",
        c"The key of an org's stream.",
        c"{org} stands for the org id, {database} for the database.",
        &STREAM_KEY,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// Discards all plans: plans and cached retention cutoffs may depend on the session's org.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn org_assigned(_new: *const core::ffi::c_char, _extra: *mut core::ffi::c_void) {
    ORG_CHANGES.fetch_add(1, Ordering::Relaxed);
    // SAFETY: takes no arguments; walks the session's own plan list, which is empty before start-up ends.
    unsafe { pg_sys::ResetPlanCache() };
}

/// How often `tailstream.org` was set in this session.
pub fn org_changes() -> u64 {
    ORG_CHANGES.load(Ordering::Relaxed)
}

/// The org this session is bound to.
pub fn org() -> Option<CString> {
    ORG.get().filter(|org| !org.is_empty())
}

/// In microseconds.
pub fn max_future_skew() -> i64 {
    i64::from(MAX_FUTURE_SKEW.get()) * 1_000_000
}

/// In microseconds.
pub fn idempotency_window() -> i64 {
    i64::from(IDEMPOTENCY_WINDOW.get()) * 1_000_000
}

/// In microseconds; 0 for ever.
pub fn cursor_ttl() -> i64 {
    i64::from(CURSOR_TTL.get()) * 1_000_000
}

/// 0 for any number.
pub fn max_cursors_per_org() -> i64 {
    MAX_CURSORS_PER_ORG.get().into()
}

pub fn auto_register_orgs() -> bool {
    AUTO_REGISTER_ORGS.get()
}

pub fn ingest_lane() -> IngestLane {
    INGEST_LANE.get()
}

/// The databases that have workers.
pub fn databases() -> Vec<String> {
    let list = DATABASES.get().unwrap_or_default().to_string_lossy().into_owned();
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// With its password, if there is one in it.
pub fn redis_url() -> String {
    secret::redis_url()
}

pub fn redis_password_file() -> Option<PathBuf> {
    path(&REDIS_PASSWORD_FILE)
}

pub fn redis_ca_file() -> Option<PathBuf> {
    path(&REDIS_CA_FILE)
}

fn path(setting: &GucSetting<Option<CString>>) -> Option<PathBuf> {
    setting
        .get()
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(path.to_string_lossy().into_owned()))
}

pub fn redis_timeout() -> Duration {
    Duration::from_millis(REDIS_TIMEOUT.get().unsigned_abs().into())
}

#[cfg(feature = "failpoints")]
pub fn failpoint() -> String {
    FAILPOINT.get().unwrap_or_default().to_string_lossy().into_owned()
}

pub fn mirror_enabled() -> bool {
    MIRROR_ENABLED.get()
}

pub fn stream_key() -> String {
    STREAM_KEY.get().unwrap_or_default().to_string_lossy().into_owned()
}
