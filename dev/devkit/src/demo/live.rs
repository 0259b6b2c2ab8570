//! The demo's live viewer: a `redis-cli` that waits for entries of a stream before they are stored.

use std::io::Read;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use postgres::Client;
use tailstream_devkit::Redis;
use tailstream_devkit::process::wait_until;

/// Ninety thousand events are a matter of seconds; a machine that does much else may need longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the viewer waits for an entry before it gives up.
const BLOCK_MS: u32 = 10_000;

/// A `redis-cli` that has asked for what comes next in a stream.
pub struct Viewer {
    process: Child,
    output: JoinHandle<std::io::Result<(Instant, String)>>,
}

/// The output of the viewer, and when its first line arrived.
pub struct Received {
    pub at: Instant,
    pub text: String,
}

impl Viewer {
    /// The command as a user would type it.
    pub fn command(redis: &Redis, key: &str) -> String {
        format!("redis-cli {} XREAD BLOCK {BLOCK_MS} STREAMS {key} '$'", redis.cli_args().join(" "))
    }

    /// Starts it, and returns when Redis has it waiting.
    pub fn start(redis: &Redis, key: &str) -> Result<Self> {
        let block = BLOCK_MS.to_string();
        let before = blocked(redis)?;
        let mut process = Command::new("redis-cli")
            .args(redis.cli_args())
            // As in a terminal.
            .arg("--no-raw")
            .args(["XREAD", "BLOCK", &block, "STREAMS", key, "$"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run redis-cli; dev/setup.sh installs it")?;
        let mut pipe = process.stdout.take().context("redis-cli has no output")?;
        let output = thread::spawn(move || {
            let mut first = [0; 4096];
            let count = pipe.read(&mut first)?;
            let at = Instant::now();
            let mut bytes = first[..count].to_vec();
            pipe.read_to_end(&mut bytes)?;
            Ok((at, String::from_utf8_lossy(&bytes).into_owned()))
        });
        let viewer = Self { process, output };
        let waits = || blocked(redis).is_ok_and(|now| now > before);
        if let Err(error) = wait_until("redis-cli to wait for an entry", PATIENCE, waits) {
            viewer.stop()?;
            return Err(error);
        }
        Ok(viewer)
    }

    /// Waits until it has been given something.
    pub fn received(mut self) -> Result<Received> {
        let output = self.output.join().map_err(|_| anyhow!("reading redis-cli's output failed"))?;
        let (at, text) = output.context("cannot read redis-cli's output")?;
        let status = self.process.wait().context("cannot wait for redis-cli")?;
        if !status.success() || !text.contains("data") {
            bail!("redis-cli was given no entry: {}{}", text.trim(), complaint(self.process.stderr.take()));
        }
        Ok(Received { at, text })
    }

    fn stop(mut self) -> Result<()> {
        self.process.kill().context("cannot end redis-cli")?;
        self.process.wait().map(drop).context("cannot wait for redis-cli")
    }
}

fn complaint(errors: Option<ChildStderr>) -> String {
    let mut text = String::new();
    if let Some(mut errors) = errors {
        // What it had to say only explains a failure that is reported anyway.
        let _ = errors.read_to_string(&mut text);
    }
    text.trim().to_owned()
}

/// How many clients wait for something to come.
fn blocked(redis: &Redis) -> Result<u64> {
    let info: redis::InfoDict = redis::cmd("INFO")
        .arg("clients")
        .query(&mut redis.connect()?)
        .context("cannot ask Redis for its clients")?;
    info.get("blocked_clients").context("Redis does not say how many clients wait")
}

/// Waits until everything that is committed is in Redis.
pub fn wait_for_mirror(client: &mut Client) -> Result<()> {
    let mut last = String::new();
    wait_until("the mirror to come after", PATIENCE, || {
        let row = client.query_one(
            "SELECT state, backlog_events + orgs_to_rebuild, coalesce(last_error, '') FROM ts_mirror_status()",
            &[],
        );
        match row {
            Ok(row) => {
                let (state, behind): (String, i64) = (row.get(0), row.get(1));
                last = format!("{state}, {behind} events behind; {}", row.get::<_, String>(2));
                state == "running" && behind == 0
            }
            Err(error) => {
                last = error.to_string();
                false
            }
        }
    })
    .with_context(|| format!("the mirror: {last}"))
}

/// Forgets what an earlier demo left: its streams have the same keys.
pub fn empty(redis: &Redis) -> Result<()> {
    redis::cmd("FLUSHALL").exec(&mut redis.connect()?).context("cannot empty the demo's Redis")
}
