//! Redis goes back in time: to a copy of what it had persisted, or to less than it was told.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use tailstream_devkit::Redis;

use crate::eventually;
use crate::mirror::PATIENCE;

/// What a server had persisted at some moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    dir: PathBuf,
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Snapshot {
    /// Of a server that persists to a dump file: saves it first.
    pub fn save(redis: &Redis) -> Self {
        let mut connection = redis.connect().expect("a connection to Redis");
        // A replica that connects makes its primary save in the background.
        eventually("the server to save", PATIENCE, || match redis::cmd("SAVE").exec(&mut connection) {
            Ok(()) => Some(()),
            Err(error) if error.to_string().contains("Background save already in progress") => None,
            Err(error) => panic!("SAVE: {error}"),
        });
        Self::copy(redis)
    }

    /// Of what is persisted now, running or not. The end of an append-only file may be cut off in the middle.
    pub fn copy(redis: &Redis) -> Self {
        let dir = redis.dir().join(format!("snapshot-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        copy(&redis.data_dir(), &dir);
        Self { dir }
    }

    /// Kills the server and starts it with this.
    pub fn restore(&self, redis: &mut Redis) {
        redis.lose_data().expect("a server without data");
        copy(&self.dir, &redis.data_dir());
        redis.start().expect("a server with old data");
    }
}

/// With owners and modes. A file that is renamed while it is being copied, as by a rewrite of the append-only file, has
/// the copy made anew.
fn copy(from: &Path, to: &Path) {
    eventually(&format!("a copy of {}", from.display()), PATIENCE, || {
        if to.exists() {
            fs::remove_dir_all(to).expect("no copy yet");
        }
        let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
        status.success().then_some(())
    });
}

/// The file that a server with an append-only file appends to.
pub fn append_only_file(redis: &Redis) -> PathBuf {
    let dir = redis.data_dir().join("appendonlydir");
    let files = fs::read_dir(&dir).expect("a directory of append-only files");
    let is_appended = |path: &PathBuf| path.to_string_lossy().ends_with(".incr.aof");
    files.flatten().map(|file| file.path()).find(is_appended).expect("an append-only file")
}

/// Kills the server and starts it with so many bytes of its append-only file: as if the machine had lost the rest with its
/// power.
pub fn truncate(redis: &mut Redis, bytes: u64) {
    redis.kill9().expect("kill -9");
    let file = OpenOptions::new().write(true).open(append_only_file(redis)).expect("a file");
    let length = file.metadata().expect("its length").len();
    file.set_len(bytes.min(length)).expect("a shorter file");
    redis.start().expect("a server that has lost the end");
}
