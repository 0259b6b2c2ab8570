//! Looking at processes through `/proc`, and waiting for them to be gone.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a condition is looked at while waiting for it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// One process, told apart from a later one with the same pid by its start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    start_time: u64,
}

/// The values of `/proc/<pid>/stat`.
struct Stat {
    state: char,
    parent: i32,
    start_time: u64,
}

impl Process {
    /// The process that has this pid now; a zombie counts as none.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = read_stat(pid).filter(|stat| !is_dead(stat.state))?;
        Some(Self { pid, start_time: stat.start_time })
    }

    /// Whether it still runs. A zombie does not: where nothing reaps orphans (a container without
    /// an init) it would stay for ever.
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid).as_ref() == Some(self)
    }

    /// Whether an argument of its command line is this path.
    pub fn has_argument(&self, path: &Path) -> bool {
        fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|argument| argument == path.as_os_str().as_encoded_bytes())
        })
    }

    /// Its direct children.
    pub fn children(&self) -> Result<Vec<Self>> {
        let mut children = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot read /proc")? {
            let name = entry.context("cannot read /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(stat) = read_stat(pid)
                && stat.parent == self.pid
                && !is_dead(stat.state)
            {
                children.push(Self { pid, start_time: stat.start_time });
            }
        }
        Ok(children)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("cannot send {signal} to process {}", self.pid))
    }

    /// Kills it with its children, none of which can slip away: a stopped process forks no more.
    pub fn kill_with_children(&self, deadline: Duration) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        wait_until("the process to stop", deadline, || {
            read_stat(self.pid).is_none_or(|stat| stat.state == 'T' || is_dead(stat.state))
        })?;
        let children = self.children()?;
        self.signal(Signal::SIGKILL)?;
        wait_until("the killed server and its children to be gone", deadline, || {
            !self.is_alive() && !children.iter().any(Self::is_alive)
        })
    }
}

/// Waits until the condition holds; an error that says what was waited for when it never does.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() > deadline {
            bail!("waited {} s in vain for {what}", deadline.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// Fields are counted from behind the command's name, which may hold spaces and parentheses.
fn read_stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        start_time: fields.nth(17)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    fn me() -> Process {
        Process::find(i32::try_from(id()).unwrap()).unwrap()
    }

    #[test]
    fn sees_itself_and_its_children() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let seen = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(me().is_alive());
        assert!(me().children().unwrap().contains(&seen));
        seen.kill_with_children(Duration::from_secs(10)).unwrap();
        assert!(!seen.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let stranger = Process { start_time: 1, ..me() };
        assert!(!stranger.is_alive());
    }

    #[test]
    fn waiting_ends() {
        let error = wait_until("the moon", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }
}
