//! The machine that was measured on.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
}

impl Machine {
    pub fn detect() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let kernel =
            fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
        Ok(Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes()?,
            kernel: kernel.trim().to_owned(),
        })
    }
}

pub fn memory_bytes() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    field(&meminfo, "MemTotal")
        .and_then(|value| value.strip_suffix(" kB"))
        .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
        .map(|kilobytes| kilobytes * 1024)
        .context("/proc/meminfo tells no MemTotal")
}

/// Bytes that an unprivileged user may still write there.
pub fn free_bytes(dir: &Path) -> Result<u64> {
    let disk = nix::sys::statvfs::statvfs(dir)
        .with_context(|| format!("cannot look at the disk of {}", dir.display()))?;
    Ok(disk.blocks_available() * disk.fragment_size())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let machine = Machine::detect().unwrap();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20 && !machine.cpu.is_empty());
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
    }

    #[test]
    fn fields() {
        assert_eq!(field("a : 1\nmodel name\t: x y\n", "model name"), Some("x y"));
        assert_eq!(field("", "a"), None);
    }
}
