//! The faults that the test causes.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::NoTls;
use tailstream_e2e::{Mirror, Random};

use crate::scene::{self, History, LIMIT, LOW_LIMIT, insist};

const FAILPOINTS: [&str; 10] = [
    "sequencer-found",
    "sequencer-placed",
    "sequencer-committed",
    "mirror-before-send",
    "mirror-sent",
    "mirror-answered",
    "mirror-compared",
    "mirror-new-epoch",
    "mirror-reserved",
    "mirror-resynced",
];

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Nothing,
    /// A worker is killed at this failpoint, when it passes it for this number of times.
    Failpoint(&'static str, usize),
    KillWorker,
    KillPostgres,
    KillRedis,
    EmptyRedis,
    FlushRedis,
    PauseRedis,
    Disconnect,
    SwitchOrg,
    Backfill,
    SwitchAll,
    Limit,
    Tier,
    Purge,
    StrangeKey,
}

impl Fault {
    pub fn any(random: &mut Random) -> Self {
        let pass = 1 + random.below(4);
        match random.below(32) {
            0..=3 => Self::Nothing,
            4..=10 => Self::Failpoint(FAILPOINTS[random.below(FAILPOINTS.len())], pass),
            11 | 12 => Self::KillWorker,
            13 => Self::KillPostgres,
            14 | 15 => Self::KillRedis,
            16 => Self::EmptyRedis,
            17 => Self::FlushRedis,
            18 | 19 => Self::PauseRedis,
            20 | 21 => Self::Disconnect,
            22 | 23 => Self::SwitchOrg,
            24 | 25 => Self::Backfill,
            26 => Self::SwitchAll,
            27 => Self::Limit,
            28 => Self::Tier,
            29 | 30 => Self::Purge,
            _ => Self::StrangeKey,
        }
    }

    pub fn happen(self, mirror: &mut Mirror, random: &mut Random, history: &mut History) {
        let config = scene::config(mirror);
        // This pause, and those below, do not synchronise: the next step is to happen at a random moment.
        let wait = |random: &mut Random, most: i64| {
            thread::sleep(Duration::from_millis(random.between(0, most) as u64));
        };
        match self {
            Self::Nothing => wait(random, 400),
            Self::Failpoint(place, pass) => {
                insist(&config, &format!("ALTER SYSTEM SET tailstream.failpoint = '{place}:{pass}'"));
                insist(&config, "SELECT pg_reload_conf()");
                wait(random, 600);
                insist(&config, "ALTER SYSTEM RESET tailstream.failpoint");
                insist(&config, "SELECT pg_reload_conf()");
            }
            Self::KillWorker => {
                let workers = "SELECT pid FROM pg_stat_activity WHERE backend_type IN ('tailstream mirror', 'tailstream sequencer')";
                let found = config.connect(NoTls).ok().and_then(|mut client| client.query(workers, &[]).ok());
                let found = found.unwrap_or_default();
                if !found.is_empty() {
                    let pid: i32 = found[random.below(found.len())].get(0);
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            Self::KillPostgres => {
                mirror.cluster.kill9().expect("kill -9");
                mirror.cluster.start().expect("the server after a crash");
            }
            Self::KillRedis => {
                mirror.redis.kill9().expect("kill -9");
                wait(random, 300);
                mirror.redis.start().expect("Redis");
            }
            Self::EmptyRedis => {
                mirror.redis.lose_data().expect("loss");
                mirror.redis.start().expect("Redis");
            }
            Self::FlushRedis => by_hand(mirror, &["FLUSHALL"]),
            Self::PauseRedis => {
                mirror.redis.pause().expect("SIGSTOP");
                wait(random, 1_500);
                mirror.redis.resume().expect("SIGCONT");
            }
            Self::Disconnect => by_hand(mirror, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
            Self::SwitchOrg => {
                history.switched.insert("switched");
                insist(&config, "SELECT ts_set_mirror('switched', false)");
                wait(random, 300);
                insist(&config, "SELECT ts_set_mirror('switched', true)");
            }
            Self::Backfill => {
                let org = random.pick(&["switched", "busy", "aged"]);
                insist(&config, &format!("SELECT ts_set_mirror('{org}', true, '1 hour')"));
            }
            Self::SwitchAll => {
                history.switched_all = true;
                insist(&config, "ALTER SYSTEM SET tailstream.mirror_enabled = off");
                insist(&config, "SELECT pg_reload_conf()");
                wait(random, 300);
                insist(&config, "ALTER SYSTEM RESET tailstream.mirror_enabled");
                insist(&config, "SELECT pg_reload_conf()");
            }
            Self::Limit => {
                history.limit_lowered = true;
                insist(&config, &format!("SELECT ts_alter_tier('standard', stream_entries => {LOW_LIMIT})"));
                insist(&config, &format!("SELECT ts_alter_tier('premium', stream_entries => {LOW_LIMIT})"));
                wait(random, 200);
                insist(&config, &format!("SELECT ts_alter_tier('standard', stream_entries => {LIMIT})"));
                insist(&config, &format!("SELECT ts_alter_tier('premium', stream_entries => {LIMIT})"));
            }
            Self::Tier => {
                let tier = random.pick(&["standard", "premium"]);
                insist(&config, &format!("SELECT ts_set_org_tier('moved', '{tier}')"));
            }
            Self::Purge => {
                insist(&config, "SELECT ts_alter_tier('standard', '1 hour')");
                insist(&config, "SELECT * FROM ts_apply_retention()");
                insist(&config, "SELECT ts_alter_tier('standard', '3 hours')");
            }
            Self::StrangeKey => {
                by_hand(mirror, &["DEL", "tailstream:stream:busy"]);
                by_hand(mirror, &["RPUSH", "tailstream:stream:busy", "strange"]);
                wait(random, 300);
                by_hand(mirror, &["DEL", "tailstream:stream:busy"]);
                // A stream that was damaged by hand is resynced on request. Without a request, this happens at the next
                // failure.
                insist(&config, "SELECT ts_set_mirror('busy', true, '1 hour')");
            }
        }
    }
}

fn by_hand(mirror: &Mirror, command: &[&str]) {
    let mut redis = redis::cmd(command[0]);
    redis.arg(&command[1..]);
    let mut connection = mirror.redis.connect().expect("a connection to Redis");
    // The command fails if the key holds a stream again, because a stream is no list.
    let _: redis::RedisResult<redis::Value> = redis.query(&mut connection);
}
