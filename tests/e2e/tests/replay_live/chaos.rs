//! Everything happens at once: producers, readers that come and go, and whatever can befall Redis, the mirror and
//! the server.

use std::time::Instant;

use postgres::{Config, NoTls};
use tailstream_e2e::mirror::make_chunks;
use tailstream_e2e::{Mirror, Random, budget, eventually};

use crate::account::check;
use crate::client::Order;
use crate::crowd::{pause, work};
use crate::disconnects::come_and_go;
use crate::reader::{PATIENCE, Reader};
use crate::source;

const NOWHERE: &str = "redis://127.0.0.1:1";

#[derive(Debug, Clone, Copy)]
enum Fault {
    Nothing,
    PauseRedis,
    KillRedis,
    EmptyRedis,
    FlushRedis,
    Disconnect,
    CutMirror,
    Outage,
    SwitchOrg,
    Backfill,
    SwitchAll,
    Limit,
    Tier,
    KillPostgres,
}

impl Fault {
    fn any(random: &mut Random) -> Self {
        match random.below(32) {
            0..=3 => Self::Nothing,
            4..=6 => Self::PauseRedis,
            7 | 8 => Self::KillRedis,
            9 => Self::EmptyRedis,
            10..=12 => Self::FlushRedis,
            13 | 14 => Self::Disconnect,
            15 | 16 => Self::CutMirror,
            17..=20 => Self::Outage,
            21..=23 => Self::SwitchOrg,
            24 | 25 => Self::Backfill,
            26 | 27 => Self::SwitchAll,
            28 => Self::Limit,
            29 => Self::Tier,
            _ => Self::KillPostgres,
        }
    }

    fn happen(self, mirror: &mut Mirror, config: &Config, org: &str, random: &mut Random) {
        let url = format!("ALTER SYSTEM SET tailstream.redis_url = '{}'", mirror.redis.url());
        let nowhere = format!("ALTER SYSTEM SET tailstream.redis_url = '{NOWHERE}'");
        match self {
            Self::Nothing => pause(random, 300),
            Self::PauseRedis => {
                mirror.redis.pause().expect("SIGSTOP");
                pause(random, 1_000);
                mirror.redis.resume().expect("SIGCONT");
            }
            Self::KillRedis => {
                mirror.redis.kill9().expect("kill -9");
                pause(random, 300);
                mirror.redis.start().expect("Redis");
            }
            Self::EmptyRedis => {
                mirror.redis.lose_data().expect("loss");
                mirror.redis.start().expect("Redis");
            }
            Self::FlushRedis => by_hand(mirror, &["FLUSHALL"]),
            Self::Disconnect => by_hand(mirror, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
            Self::CutMirror => {
                reload(config, &nowhere);
                pause(random, 500);
                reload(config, &url);
            }
            // What waits for longer than this is left out.
            Self::Outage => {
                reload(config, &nowhere);
                insist(config, "SELECT ts_alter_tier('standard', stream_age => '100 milliseconds')");
                pause(random, 800);
                reload(config, &url);
                pause(random, 300);
                insist(config, "SELECT ts_alter_tier('standard', stream_age => '1 hour')");
            }
            Self::SwitchOrg => {
                insist(config, &format!("SELECT ts_set_mirror('{org}', false)"));
                pause(random, 300);
                insist(config, &format!("SELECT ts_set_mirror('{org}', true)"));
            }
            Self::Backfill => insist(config, &format!("SELECT ts_set_mirror('{org}', true, '1 hour')")),
            Self::SwitchAll => {
                reload(config, "ALTER SYSTEM SET tailstream.mirror_enabled = off");
                pause(random, 300);
                reload(config, "ALTER SYSTEM RESET tailstream.mirror_enabled");
            }
            Self::Limit => {
                insist(config, "SELECT ts_alter_tier('standard', stream_entries => 20)");
                pause(random, 200);
                insist(config, "SELECT ts_alter_tier('standard', stream_entries => 1000)");
            }
            Self::Tier => {
                let tier = random.pick(&["standard", "premium"]);
                insist(config, &format!("SELECT ts_set_org_tier('{org}', '{tier}')"));
            }
            Self::KillPostgres => {
                mirror.cluster.kill9().expect("kill -9");
                mirror.cluster.start().expect("the server after a crash");
            }
        }
    }
}

fn by_hand(mirror: &Mirror, command: &[&str]) {
    let mut connection = mirror.redis.connect().expect("a connection to Redis");
    redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection).expect("a command");
}

fn reload(config: &Config, sql: &str) {
    insist(config, sql);
    insist(config, "SELECT pg_reload_conf()");
}

/// Executes a statement again and again while the server is down.
fn insist(config: &Config, sql: &str) {
    eventually(sql, PATIENCE, || {
        let done = config.connect(NoTls).ok()?.batch_execute(sql);
        match done.map_err(|error| (error.code().is_some_and(|code| !code.code().starts_with("57P")), error))
        {
            Ok(()) => Some(()),
            Err((true, error)) => panic!("{sql}: {error:?}"),
            Err(_) => None,
        }
    });
}

#[test]
fn whatever_happens_every_event_comes_once() {
    let random = Random::new("live chaos");
    let mut mirror = Mirror::with(
        "live-chaos",
        |cluster| cluster.setting("tailstream.redis_timeout", "500ms").setting("max_wal_size", "128MB"),
        |redis| redis,
    );
    let plain = source(&mirror);
    insist(&plain.sql, "SELECT ts_alter_tier('standard', stream_entries => 1000)");
    let until = Instant::now() + budget(20.0);
    let mut round = 0;
    while Instant::now() < until || round < 2 {
        let source = plain.of(&format!("acme-{round}"));
        make_chunks(&mut mirror.connect());
        insist(&source.sql, &format!("SELECT ts_set_org_tier('{}', 'standard')", source.org));
        let mut random = random.fork(round);
        let readers = work(&source, &random.clone(), come_and_go, || {
            for _ in 0..8 {
                let fault = Fault::any(&mut random);
                println!("{round}: {fault:?}");
                fault.happen(&mut mirror, &source.sql, &source.org, &mut random);
            }
        });
        let mut client = mirror.connect();
        readers.iter().for_each(|reader| check(reader, &mut client));
        let came = |reader: &Reader| {
            [Some(Order::EventTime), Some(Order::Stream), None].map(|order| reader.events(order).len())
        };
        println!("round {round}: {:?}", readers.iter().map(came).collect::<Vec<_>>());
        round += 1;
    }
}
