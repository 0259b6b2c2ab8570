//! Readers that page while chunks come and go.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use postgres::Client;
use tailstream_devkit::event::now_micros;
use tailstream_e2e::database::one;
use tailstream_e2e::{Database, Random, budget};

use crate::HOUR;
use crate::page::{Direction, Request, places};
use crate::schedule::{Schedule, timeline};

const EVENTS: usize = 600;

struct Scene {
    database: Database,
    reading: AtomicBool,
    dropped: AtomicUsize,
}

/// Events that stay, over some hours, in the chunks of another tier than those that go.
fn keep(client: &mut Client) {
    let sql = format!(
        "SELECT ts_set_org_tier('acme', 'premium');
         INSERT INTO tailstream.events (id, created_at, org_id, tier)
         SELECT n, now() - n * interval '1 minute', 'acme', 2 FROM generate_series(1, {EVENTS}) n"
    );
    client.batch_execute(&sql).expect("events");
}

/// Makes chunks that are to be purged at once, of the org that is read, too, and purges them.
fn purge(scene: &Scene) {
    let mut client = scene.database.connect();
    let mut round = 0;
    while scene.reading.load(Ordering::Relaxed) {
        let hours = 5 + round % 5;
        let expired = format!(
            "INSERT INTO tailstream.events (id, created_at, org_id, tier)
             SELECT -n, now() - interval '{hours} hours', 'other', 1 FROM generate_series(1, 50) n"
        );
        client.batch_execute(&expired).expect("expired events");
        let dropped: i64 = one(&mut client, "SELECT sum(chunks_dropped) FROM ts_apply_retention()");
        scene.dropped.fetch_add(dropped as usize, Ordering::Relaxed);
        round += 1;
    }
}

/// Pages and schedules that must all show the same events.
fn read(scene: &Scene, mut random: Random, until: Instant) -> usize {
    let mut client = scene.database.connect();
    let mode = random.pick(&["auto", "force_generic_plan"]);
    client.batch_execute(&format!("SET plan_cache_mode = {mode}")).expect("a mode");
    let mut reads = 0;
    while Instant::now() < until || reads < 3 {
        let direction = Direction::BOTH[random.below(2)];
        let size = [40, 97, 250, 1000][random.below(4)];
        let request = Request::of("acme", direction).size(size);
        let pages = request.all_pages(&mut client);
        let mut ids: Vec<i64> = places(&pages).iter().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        assert_eq!(ids, Vec::from_iter(1..=EVENTS as i64), "{direction:?} by {size}");
        let schedule = Schedule::of("acme", now_micros() - 11 * HOUR);
        let plays = schedule.plays(&mut client);
        assert_eq!(timeline(&plays).len(), EVENTS);
        reads += 1;
    }
    reads
}

#[test]
fn chunks_that_go_meanwhile_disturb_no_reader() {
    let random = Random::new("purging");
    let database = crate::database("purging");
    keep(&mut database.connect());
    let scene = Scene { database, reading: AtomicBool::new(true), dropped: AtomicUsize::new(0) };
    let until = Instant::now() + budget(5.0);
    thread::scope(|scope| {
        let purger = scope.spawn(|| purge(&scene));
        let readers: Vec<_> = (0..3)
            .map(|number| {
                let (scene, random) = (&scene, random.fork(number));
                scope.spawn(move || read(scene, random, until))
            })
            .collect();
        let reads: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        scene.reading.store(false, Ordering::Relaxed);
        purger.join().expect("the purge");
        println!("{reads:?} reads");
        assert!(reads.iter().all(Result::is_ok), "a reader failed");
    });
    assert!(scene.dropped.into_inner() > 3, "hardly a chunk was dropped");
}

#[test]
fn a_page_begun_in_an_old_snapshot_is_whole() {
    const LATE: i64 = 7777;
    let database = crate::database("snapshot");
    let mut client = database.connect();
    keep(&mut client);
    for begin in ["READ ONLY", "ISOLATION LEVEL REPEATABLE READ", "ISOLATION LEVEL SERIALIZABLE READ ONLY"] {
        let mut reader = database.connect();
        reader.batch_execute(&format!("BEGIN {begin}")).expect(begin);
        let request = Request::of("acme", Direction::Forward).size(100);
        let first = request.page(&mut reader);
        let late =
            "INSERT INTO tailstream.events (id, created_at, org_id, tier) VALUES (7777, now(), 'acme', 2)";
        client.execute(late, &[]).expect("a late event");
        let rest = Request { size: 1000, ..request.after(&first[99]) }.page(&mut reader);
        let mut ids: Vec<i64> = places(&first).iter().chain(&places(&rest)).map(|(_, id)| *id).collect();
        ids.sort_unstable();
        // Only READ COMMITTED must see what came meanwhile, no level may miss or double anything.
        let late = ids.pop_if(|id| *id == LATE).is_some();
        assert!(late || begin != "READ ONLY", "the late event is missing");
        assert_eq!(ids, Vec::from_iter(1..=EVENTS as i64), "{begin}");
        let plays = Schedule::of("acme", now_micros() - 11 * HOUR).plays(&mut reader);
        assert_eq!(plays.len(), EVENTS + usize::from(late), "{begin}");
        reader.batch_execute("COMMIT").expect("commit");
        client.execute("DELETE FROM tailstream.events WHERE id = $1", &[&LATE]).expect("as before");
    }
}
