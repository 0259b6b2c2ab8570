//! Starting, stopping, pausing and killing the server.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::process::Child;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use super::state::write_private;
use super::{Redis, config};
use crate::process::{Process, wait_until};
use crate::repository::fnv1a;

/// Loading or saving the data of a big test may take its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Another process may take the port between the search for a free one and the start of the server.
const PORT_ATTEMPTS: usize = 5;
/// Below those the system gives to outgoing connections. With one of these a client that tries
/// again and again while the server is down would sooner or later be given the server's port and be
/// connected to itself, or to be in the way of the server's return.
const PORTS: Range<u16> = 20_000..32_000;
/// Lines of the server's log that go into an error.
const LOG_LINES: usize = 15;

/// The server's program: `TAILSTREAM_REDIS_SERVER`, or `redis-server`. Valkey's takes the same configuration.
fn server_program() -> OsString {
    env::var_os("TAILSTREAM_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

impl Redis {
    /// Starts the server, or resumes a paused one, and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        if let Some(process) = self.process() {
            process.signal(Signal::SIGCONT)?;
            return self.wait_until_up(&process);
        }
        self.user.make_private_dir(&self.data_dir())?;
        if self.state.wanted.needs_certificates() && !self.certificates().exist() {
            self.certificates().make(&self.user)?;
        }
        let mut refused = anyhow!("no port was free");
        for attempt in 0..PORT_ATTEMPTS {
            // The port of the last start is taken without a look whether it is free: that look
            // would itself be in the way of clients that wait for the server.
            if attempt > 0 || self.port() == 0 {
                self.state.port = self.free_port()?;
            }
            let log_before = fs::metadata(self.log_path()).map_or(0, |log| log.len());
            match self.launch() {
                Ok(()) => {
                    self.owned = true;
                    return Ok(());
                }
                Err(error) if self.log_since(log_before).contains("Failed listening on port") => {
                    refused = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.context("cannot find a port for the server"))
    }

    /// Stops the server, paused or not. It saves its data, if it persists any.
    pub fn stop(&self) -> Result<()> {
        let Some(process) = self.process() else {
            return Ok(());
        };
        process.signal(Signal::SIGTERM)?;
        process.signal(Signal::SIGCONT)?;
        wait_until("the server to stop", PATIENCE, || is_gone(&process)).with_context(|| {
            format!("Redis {} does not stop; its log ends:\n{}", self.name, self.log_tail(LOG_LINES))
        })
    }

    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// `kill -9`, as a crash would be, of a paused server too; returns when it is gone.
    pub fn kill9(&self) -> Result<()> {
        kill(&self.running()?)
    }

    /// Kills the server, if it runs, and removes what it persisted: the next start is an empty one.
    pub fn lose_data(&self) -> Result<()> {
        self.kill_if_running()?;
        let data_dir = self.data_dir();
        if data_dir.exists() {
            fs::remove_dir_all(&data_dir).with_context(|| format!("cannot remove {}", data_dir.display()))?;
        }
        Ok(())
    }

    /// Makes a replica a server of its own, also after the next start.
    pub fn promote(&mut self) -> Result<()> {
        let mut connection = self.connect()?;
        redis::cmd("REPLICAOF")
            .arg("NO")
            .arg("ONE")
            .exec(&mut connection)
            .context("cannot promote the replica")?;
        self.state.wanted.primary = None;
        self.state.save(&self.dir, &self.user)
    }

    /// Stops the process with SIGSTOP: connections stay open and new ones are accepted, but nothing is answered.
    pub fn pause(&self) -> Result<()> {
        let process = self.running()?;
        process.signal(Signal::SIGSTOP)?;
        wait_until("the server to be paused", PATIENCE, || is_paused(&process))
    }

    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    pub(super) fn kill_if_running(&self) -> Result<()> {
        self.process().map_or(Ok(()), |process| kill(&process))
    }

    fn running(&self) -> Result<Process> {
        self.process().with_context(|| format!("Redis {} does not run", self.name))
    }

    fn free_port(&self) -> Result<u16> {
        // Each server begins elsewhere, so that it does not get the port of one that is down.
        let count = u64::from(PORTS.end - PORTS.start);
        let hash = fnv1a(self.dir.as_os_str().as_bytes());
        let middle = PORTS.start + u16::try_from(hash % count).unwrap_or(0);
        (middle..PORTS.end)
            .chain(PORTS.start..middle)
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .context("no TCP port is free on 127.0.0.1")
    }

    /// Starts the server on the port it has now.
    fn launch(&self) -> Result<()> {
        self.state.save(&self.dir, &self.user)?;
        let text = config::render(&self.state, &self.dir, &self.data_dir());
        write_private(&self.user, &self.config_path(), &text)?;
        let process = self.spawn()?;
        self.wait_until_up(&process).inspect_err(|_| {
            if let Err(error) = kill(&process) {
                eprintln!("Redis {}: {error:#}", self.name);
            }
        })
    }

    /// A child in a session of its own, so that what ends us (Ctrl-C, a closed terminal) leaves it.
    fn spawn(&self) -> Result<Process> {
        let log = self.open_log()?;
        let errors = log.try_clone().context("cannot open the server's log twice")?;
        let child = self
            .user
            .command("setsid")
            .arg(server_program())
            .arg(self.config_path())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .context("cannot run setsid, which is part of util-linux")?;
        let found = i32::try_from(child.id()).ok().and_then(Process::find);
        let written = self.user.write_file(&self.pid_path(), &child.id().to_string());
        reap(child)?;
        written?;
        found.with_context(|| self.start_failure())
    }

    fn wait_until_up(&self, process: &Process) -> Result<()> {
        let mut unanswered = None;
        let waited = wait_until("the server to answer", PATIENCE, || {
            unanswered = self.ping(process).err();
            unanswered.is_none() || !process.is_alive()
        });
        if !process.is_alive() {
            bail!(self.start_failure());
        }
        match unanswered {
            Some(error) => {
                waited.map_err(|waited| error.context(format!("{}: {waited}", self.start_failure())))
            }
            None => Ok(()),
        }
    }

    fn start_failure(&self) -> String {
        format!(
            "Redis {} does not start (dev/setup.sh installs redis-server); its log ends:\n{}",
            self.name,
            self.log_tail(LOG_LINES)
        )
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log_path();
        if !path.exists() {
            self.user.write_file(&path, "")?;
        }
        OpenOptions::new().append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
    }

    fn log_since(&self, offset: u64) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
        String::from_utf8_lossy(&log[start..]).into_owned()
    }
}

/// Waits for the child's end in the background, so that it leaves no zombie.
fn reap(mut child: Child) -> Result<()> {
    thread::Builder::new()
        .name("redis-reaper".to_owned())
        .spawn(move || child.wait())
        .map(drop)
        .context("cannot start a thread")
}

fn kill(process: &Process) -> Result<()> {
    process.kill_with_children(PATIENCE)?;
    wait_until("the killed server's threads to be gone", PATIENCE, || is_gone(process))
}

/// Whether all its threads have ended: each that has not keeps the port, even when the process is a
/// zombie by then, and a server that starts too soon would have to take another port.
fn is_gone(process: &Process) -> bool {
    let tasks = || fs::read_dir(format!("/proc/{}/task", process.pid)).map_or(0, Iterator::count);
    !process.is_alive() && (Process::find(process.pid).is_some() || tasks() <= 1)
}

fn is_paused(process: &Process) -> bool {
    fs::read_to_string(format!("/proc/{}/status", process.pid)).map_or(true, |status| {
        status.lines().any(|line| line.starts_with("State:") && line.contains("stopped"))
    })
}
