//! Redis goes back in time repeatedly, while orgs are erased, switched, and moved between tiers, limits are widened,
//! and bytes arrive late. In the end, every stream contains all events of the table that it should, and nothing of an
//! erased org is left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tailstream_devkit::Redis;
use tailstream_e2e::rewind::{append_only_file, truncate};
use tailstream_e2e::{Mirror, Proxy, Random, Sides, Snapshot, budget};

/// The time during which faults occur, before they stop and the streams are checked.
const ROUND: Duration = Duration::from_secs(4);
const ORGS: [&str; 5] = ["steady", "busy", "retiered", "widened", "switched"];
/// The texts at which a connection may be held.
const PLACES: [&str; 6] =
    ["\r\nXADD\r\n", "\r\nDEL\r\n", "\r\nXTRIM\r\n", "\r\nSET\r\n", "\r\nHSCAN\r\n", "\r\nMULTI\r\n"];
/// The number of snapshots that are kept.
const MOST: usize = 6;

struct World {
    mirror: Mirror,
    sides: Sides,
    proxy: Proxy,
    random: Random,
    snapshots: Vec<Snapshot>,
    /// A replica, until it takes over. It may be disconnected before that.
    replica: Option<Redis>,
    replicas: usize,
    name: &'static str,
    /// Orgs that will be erased, and orgs that were.
    doomed: BTreeSet<String>,
    erased: BTreeSet<String>,
    append_only: bool,
}

#[test]
fn redis_without_an_append_only_file_goes_back_in_time() {
    World::new("rewind-chaos-dump", false).run();
}

#[test]
fn redis_that_syncs_every_second_goes_back_in_time() {
    World::new("rewind-chaos-aof", true).run();
}

impl World {
    fn new(name: &'static str, append_only: bool) -> Self {
        let random = Random::new(name);
        let mirror = Mirror::with(
            name,
            |cluster| cluster.setting("tailstream.redis_timeout", "500ms"),
            |redis| redis.append_only(append_only).setting("appendfsync", "everysec"),
        );
        let proxy = Proxy::to(mirror.redis.port());
        mirror.set("tailstream.redis_url", &proxy.url());
        let mut sides = mirror.sides();
        sides
            .client
            .batch_execute(
                "SELECT ts_alter_tier('standard', stream_entries => 1000000);
                 SELECT ts_create_tier('narrow', '3 hours', 50, '1 hour');
                 SELECT ts_create_tier('own', '3 hours', 1000000, '1 hour');
                 SELECT ts_set_org_tier('widened', 'own')",
            )
            .expect("tiers");
        let (doomed, erased) = (BTreeSet::new(), BTreeSet::new());
        let snapshots = vec![Snapshot::copy(&mirror.redis)];
        Self {
            mirror,
            sides,
            proxy,
            random,
            snapshots,
            replica: None,
            replicas: 0,
            name,
            doomed,
            erased,
            append_only,
        }
    }

    fn run(mut self) {
        let until = Instant::now() + budget(16.0);
        let mut round = 0;
        while Instant::now() < until || round < 2 {
            let end = Instant::now() + ROUND;
            while Instant::now() < end {
                self.write();
                self.happen();
            }
            self.calm();
            self.check();
            round += 1;
            println!(
                "round {round}: {} orgs erased, {} epochs in all, {} resyncs reserved",
                self.erased.len(),
                self.mirror.log_lines("begins a new epoch").len(),
                self.number("SELECT resyncs_reserved FROM tailstream.mirror")
            );
        }
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.sides.client.query_one(sql, &[]).expect("a number").get(0)
    }

    fn execute(&mut self, sql: &str) {
        self.sides.client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn write(&mut self) {
        for _ in 0..=self.random.below(4) {
            let org = self.random.pick(&ORGS);
            let events = [1, 1, 3, 40, 300, 1_200][self.random.below(6)];
            self.sides.ingest(org, events);
        }
        if self.random.chance(30) {
            let org = format!("doomed-{}", self.doomed.len() + self.erased.len());
            self.sides.ingest(&org, 20);
            self.doomed.insert(org);
        }
    }

    fn happen(&mut self) {
        let what = self.random.below(20);
        println!("{what}");
        match what {
            0 | 1 => self.erase(),
            2 => {
                let tier = self.random.pick(&["narrow", "standard", "standard"]);
                self.execute(&format!("SELECT ts_set_org_tier('retiered', '{tier}')"));
            }
            3 => {
                let entries = self.random.pick(&["60", "1000000", "1000000"]);
                self.execute(&format!("SELECT ts_alter_tier('own', stream_entries => {entries})"));
            }
            4 => self.execute("SELECT ts_set_mirror('switched', false)"),
            5 => self.execute("SELECT ts_set_mirror('switched', true, '1 hour')"),
            6 => {
                let org = self.random.pick(&ORGS[..4]);
                self.execute(&format!("SELECT ts_set_mirror('{org}', true, '1 hour')"));
            }
            7 | 8 => self.snapshot(),
            9..=11 => self.rewind(),
            12 => self.truncate(),
            13 => self.replicate(),
            14 => self.fail_over(),
            15 | 16 => self.proxy.hold_at(PLACES[self.random.below(PLACES.len())]),
            17 => self.proxy.release(),
            18 => {
                self.mirror.redis.kill9().expect("kill -9");
                self.mirror.redis.start().expect("Redis");
            }
            _ => self.kill_worker(),
        }
        // This pause does not synchronise: the next fault is to happen at a random moment.
        std::thread::sleep(Duration::from_millis(self.random.between(0, 250) as u64));
    }

    fn erase(&mut self) {
        if let Some(org) = self.doomed.pop_first() {
            self.execute(&format!("SELECT ts_erase_org('{org}')"));
            self.erased.insert(org);
        }
    }

    fn snapshot(&mut self) {
        let redis = &self.mirror.redis;
        let snapshot = if self.append_only { Snapshot::copy(redis) } else { Snapshot::save(redis) };
        if self.snapshots.len() >= MOST {
            self.snapshots.remove(self.random.below(MOST));
        }
        self.snapshots.push(snapshot);
    }

    /// Restarts Redis with any of the snapshots, even the first.
    fn rewind(&mut self) {
        let snapshot = self.snapshots[self.random.below(self.snapshots.len())].clone();
        snapshot.restore(&mut self.mirror.redis);
    }

    /// Cuts off the end of the append-only file.
    fn truncate(&mut self) {
        if self.append_only {
            let length = append_only_file(&self.mirror.redis).metadata().expect("its length").len();
            let lost = self.random.between(1, 40_000) as u64;
            truncate(&mut self.mirror.redis, length.saturating_sub(lost));
        }
    }

    /// Starts a replica, or disconnects the present one.
    fn replicate(&mut self) {
        match &mut self.replica {
            None => {
                self.replicas += 1;
                let name = format!("e2e-{}-{}", self.name, self.replicas);
                let replica =
                    Redis::builder(&name).replica_of(&self.mirror.redis).append_only(self.append_only);
                self.replica = Some(replica.create().expect("a replica"));
            }
            Some(replica) => replica.promote().expect("a replica that is cut off"),
        }
    }

    /// Lets the replica take over with the data that it has.
    fn fail_over(&mut self) {
        let Some(mut replica) = self.replica.take() else { return };
        replica.promote().expect("a replica that takes over");
        self.mirror.redis.kill9().expect("kill -9");
        // The other snapshots are files of the old server.
        self.snapshots = vec![Snapshot::copy(&replica)];
        self.mirror.redis = replica;
        self.connect_to_redis();
    }

    fn connect_to_redis(&mut self) {
        self.proxy = Proxy::to(self.mirror.redis.port());
        self.mirror.set("tailstream.redis_url", &self.proxy.url());
    }

    fn kill_worker(&mut self) {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'tailstream mirror'";
        if let Some(row) = self.sides.client.query_opt(sql, &[]).expect("a worker") {
            let pid: i32 = row.get(0);
            // SIGTERM ends one process, without a restart of the server.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Ends all faults. Streams are not repaired here: the mirror must have repaired them itself.
    fn calm(&mut self) {
        self.replica = None;
        let wide = "SELECT ts_set_org_tier('retiered', 'standard') WHERE (SELECT tier FROM ts_org('retiered')) = 'narrow';
                    SELECT ts_alter_tier('own', stream_entries => 1000000)
                    WHERE (SELECT stream_entries FROM tailstream.tiers WHERE name = 'own') = 60;
                    SELECT ts_set_mirror('switched', true, '1 hour') WHERE NOT (SELECT mirrored FROM tailstream.orgs WHERE org_id = 'switched')";
        self.execute(wide);
        self.proxy.release();
        let client = self.mirror.connect();
        self.sides = Sides::new(client, &self.mirror.redis, "tailstream:stream:{org}");
    }

    fn check(&mut self) {
        for org in ORGS {
            self.sides.ingest(org, 1);
        }
        let doomed: Vec<String> = self.doomed.iter().cloned().collect();
        let orgs: Vec<&str> = ORGS.iter().copied().chain(doomed.iter().map(String::as_str)).collect();
        self.sides.settle(&orgs);
        let pattern = self.sides.key("*");
        let keys: BTreeSet<String> =
            redis::cmd("KEYS").arg(pattern).query(&mut self.sides.redis).expect("KEYS");
        let back: Vec<&String> =
            self.erased.iter().filter(|org| keys.contains(&self.sides.key(org))).collect();
        assert!(back.is_empty(), "streams of erased orgs: {back:?}");
    }
}
