//! Counters, timings and worker states, for `ts_metrics()`, `ts_health()` and `ts_mirror_status()`.

use std::cell::RefCell;
use std::time::Duration;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::error::{Error, Result, report};
use crate::shmem::counter::{BOUNDS, Counter, Timer};
use crate::shmem::{self, Role};

thread_local! {
    /// What the running transaction has done. It is counted at its commit.
    static PENDING: RefCell<Vec<(Counter, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Counts an action when the transaction commits. An action in a savepoint that was rolled back is counted too.
pub fn count_at_commit(counter: Counter, amount: u64) {
    if amount > 0 && shmem::is_preloaded() {
        PENDING.with_borrow_mut(|pending| match pending.iter_mut().find(|(other, _)| *other == counter) {
            Some((_, sum)) => *sum += amount,
            None => pending.push((counter, amount)),
        });
    }
}

/// Transaction callback: counts the pending actions of a committed transaction.
pub fn transaction_ended(committed: bool) {
    PENDING.with_borrow_mut(|pending| {
        if committed
            && !pending.is_empty()
            && let Some(shared) = shmem::own()
        {
            for (counter, amount) in pending.iter() {
                shared.count(*counter, *amount);
            }
        }
        pending.clear();
    });
}

/// Counts an action at once, whether the transaction commits or not.
pub fn count(counter: Counter, amount: u64) {
    if let Some(shared) = shmem::own() {
        shared.count(counter, amount);
    }
}

pub fn observe(timer: Timer, took: Duration) {
    if let Some(shared) = shmem::own() {
        shared.histogram(timer).observe(took);
    }
}

type Row = (String, String, f64, &'static str, &'static str);

/// `tailstream.counters()`
#[pg_extern(sql = false)]
fn counters() -> TableIterator<
    'static,
    (
        name!(name, String),
        name!(labels, String),
        name!(value, f64),
        name!(r#type, &'static str),
        name!(help, &'static str),
    ),
> {
    let Some(shared) = shmem::own() else { return report(Err(Error::NotPreloaded)) };
    let mut rows: Vec<Row> = Vec::new();
    for counter in Counter::ALL {
        let (name, help) = counter.describe();
        rows.push((name.to_owned(), "{}".to_owned(), shared.counted(counter) as f64, "counter", help));
    }
    for timer in Timer::ALL {
        let (name, help) = timer.describe();
        let histogram = shared.histogram(timer);
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let cumulative = histogram.cumulative();
        for (bound, count) in bounds.zip(cumulative) {
            let labels = format!("{{\"le\":\"{bound}\"}}");
            rows.push((format!("{name}_bucket"), labels, count as f64, "histogram", help));
        }
        let total = cumulative.last().copied().unwrap_or_default() as f64;
        rows.push((format!("{name}_sum"), "{}".to_owned(), histogram.sum_seconds(), "histogram", help));
        rows.push((format!("{name}_count"), "{}".to_owned(), total, "histogram", help));
    }
    for role in Role::ALL {
        let up = f64::from(u8::from(shared.worker(role).pid() != 0));
        let labels = format!("{{\"worker\":\"{}\"}}", role.name());
        rows.push(("tailstream_worker_up".to_owned(), labels, up, "gauge", "Whether the worker runs."));
    }
    TableIterator::new(rows)
}

/// `tailstream.count(counter text, amount bigint)`: for actions of SQL functions.
#[pg_extern(sql = false)]
fn count_by_name(counter: &str, amount: i64) {
    let known = Counter::ALL.into_iter().find(|known| known.describe().0 == counter);
    match known {
        Some(counter) => count_at_commit(counter, amount.unsigned_abs()),
        None => report(Err(Error::Internal("a counter of no known name"))),
    }
}

/// `tailstream.worker_state(worker text)`
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn worker_state(
    worker: &str,
) -> TableIterator<
    'static,
    (
        name!(pid, Option<i32>),
        name!(state, &'static str),
        name!(last_error, Option<String>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
    ),
> {
    let found = Role::ALL.into_iter().find(|role| role.name() == worker);
    let row = shmem::own().zip(found).map(|(shared, role)| {
        let cell = shared.worker(role);
        let (error, at) = shmem::last_error(shared, role).unzip();
        let pid = Some(cell.pid()).filter(|pid| *pid != 0);
        (pid, cell.state().name(), error, at.and_then(time))
    });
    TableIterator::new(row)
}

/// `tailstream.require_workers()`
#[pg_extern(sql = false)]
fn require_workers() {
    report(workers_here());
}

/// `tailstream.has_workers() → boolean`
#[pg_extern(sql = false)]
fn has_workers() -> bool {
    workers_here().is_ok()
}

/// Error unless this database has workers.
pub fn workers_here() -> Result<()> {
    if !shmem::is_preloaded() {
        return Err(Error::NotPreloaded);
    }
    let name = database_name();
    if crate::settings::databases().contains(&name) { Ok(()) } else { Err(Error::NoWorkers(name)) }
}

/// The name of this process's database.
pub fn database_name() -> String {
    // SAFETY: reads the catalog; the copy is PostgreSQL's to free.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() {
            String::new()
        } else {
            core::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

/// From PostgreSQL's microseconds; `None` for 0.
pub fn time(microseconds: i64) -> Option<TimestampWithTimeZone> {
    (microseconds != 0).then(|| TimestampWithTimeZone::try_from(microseconds).ok()).flatten()
}
