//! Random faults at the same time: writers, crashes on all sides, switches, changes of tiers, and purges. In the end,
//! every stream must match the table.

mod faults;
mod library;
mod scene;
mod writers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tailstream_e2e::positions::{check_positions, wait_until_all_placed};
use tailstream_e2e::{Mirror, Random, budget};

use faults::Fault;
use scene::{History, ORGS};

/// The time during which faults occur, before they stop and the streams are checked.
const ROUND: Duration = Duration::from_secs(6);
const WRITERS: u64 = 3;

#[test]
fn streams_match_the_table_after_random_faults() {
    let mut random = Random::new("mirror chaos");
    let path = library::with_failpoints();
    let mut mirror = Mirror::with(
        "mirror-chaos",
        |cluster| {
            cluster
                .setting("dynamic_library_path", &format!("{path}:$libdir"))
                .setting("tailstream.redis_timeout", "500ms")
                .setting("max_wal_size", "128MB")
        },
        |redis| redis.append_only(true).setting("appendfsync", "always"),
    );
    scene::prepare(&mut mirror.connect());
    let mut history = History::default();
    let until = Instant::now() + budget(30.0);
    let mut rounds = 0;
    while Instant::now() < until || rounds < 2 {
        let writing = AtomicBool::new(true);
        let connection = scene::config(&mirror);
        thread::scope(|scope| {
            for number in 0..WRITERS {
                let random = random.fork(rounds * 100 + number);
                let (writing, connection) = (&writing, &connection);
                scope.spawn(move || writers::write(connection, random, writing));
            }
            let end = Instant::now() + ROUND;
            while Instant::now() < end {
                let fault = Fault::any(&mut random);
                println!("{rounds}: {fault:?}");
                fault.happen(&mut mirror, &mut random, &mut history);
            }
            writing.store(false, Ordering::Relaxed);
        });
        scene::calm(&mut mirror);
        let mut sides = mirror.sides();
        wait_until_all_placed(&mut sides.client, Duration::from_secs(60));
        check_positions(&mut sides.client);
        scene::drain(&mut sides);
        scene::check(&mut sides, &history);
        // From here on, every stream must contain everything that came after the mirror was last switched on for all
        // orgs.
        for org in ORGS {
            let backfill = "SELECT ts_set_mirror($1, true, '1 hour')";
            sides.client.execute(backfill, &[&org]).expect("a backfill");
        }
        history = History::default();
        scene::drain(&mut sides);
        scene::check(&mut sides, &history);
        rounds += 1;
        let sent = sides.status();
        let epochs = mirror.log_lines("begins a new epoch").len();
        println!(
            "round {rounds}: {} sent, {} resent since the last crash, {epochs} epochs in all",
            sent.entries_sent, sent.entries_resent
        );
    }
}
