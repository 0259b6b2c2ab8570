//! Workers are in nobody's way: not when databases go, not when the server stops, not when they die.

mod databases;
mod errors;
mod hooks;
mod processes;
mod standby;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use postgres::Client;
use tailstream_devkit::process::Process;
use tailstream_e2e::database::column;
use tailstream_e2e::eventually;

/// What comes at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(30);

/// The processes of the sequencer or the mirror of a database.
fn pids(client: &mut Client, database: &str, worker: &str) -> Vec<i32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = 'tailstream {worker}'"
    );
    column(client, &sql)
}

/// Waits until a database has one sequencer and one mirror.
#[track_caller]
fn wait_for_workers(client: &mut Client, database: &str) {
    for worker in ["sequencer", "mirror"] {
        eventually(&format!("the {worker} of {database}"), LONG, || {
            (pids(client, database, worker).len() == 1).then_some(())
        });
    }
}

/// Waits until it has none.
#[track_caller]
fn wait_for_none(client: &mut Client, database: &str) {
    eventually(&format!("the workers of {database} to leave"), LONG, || {
        let left = pids(client, database, "sequencer").len() + pids(client, database, "mirror").len();
        (left == 0).then_some(())
    });
}

/// A statement that has to succeed at once.
#[track_caller]
fn at_once(client: &mut Client, sql: &str) {
    let began = Instant::now();
    if let Err(error) = client.batch_execute(sql) {
        let there = "SELECT datname || ' ' || backend_type || ' ' || application_name FROM pg_stat_activity WHERE datname <> ''";
        panic!("{sql}: {error:?}; connected are {:?}", column::<String>(client, there));
    }
    assert!(began.elapsed() < AT_ONCE, "{sql}: took {:?}", began.elapsed());
}

fn kill(pid: i32, signal: Signal) {
    assert!(Process::find(pid).is_some(), "no process {pid}");
    nix::sys::signal::kill(Pid::from_raw(pid), signal).expect("a signal");
}
