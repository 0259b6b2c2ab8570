//! A mirror that lags, a Redis that is away or loses what it has.

use std::time::Duration;

use tailstream_e2e::database::one;
use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::positions::wait_until_all_placed;
use tailstream_e2e::{Mirror, Sides, eventually, stream};

use crate::account::check;
use crate::client::{Order, Pace};
use crate::crowd::last_event;
use crate::gaps::check_gaps;
use crate::reader::{PACE, Reader};
use crate::{ORG, source};

/// Nothing but what is in Redis says that something is missing.
const NEVER_QUIET: Pace = Pace { quiet: Duration::from_secs(3_600), ..PACE };
const NOWHERE: &str = "redis://127.0.0.1:1";

/// Has the mirror find no Redis; readers still have it.
fn cut(mirror: &Mirror, sides: &mut Sides) {
    mirror.set("tailstream.redis_url", NOWHERE);
    sides.wait_for_state("failing");
}

fn mend(mirror: &Mirror) {
    mirror.set("tailstream.redis_url", &mirror.redis.url());
}

/// Waits until all that came so far is older than a second.
fn grow_old(sides: &mut Sides) {
    wait_until_all_placed(&mut sides.client, PATIENCE);
    eventually("the events to be older than their stream", PATIENCE, || {
        let sql = "SELECT max(placed_at) < clock_timestamp() - interval '1 second' FROM tailstream.positions";
        one::<bool>(&mut sides.client, sql).then_some(())
    });
}

#[test]
fn what_is_before_the_boundary_is_not_shown_again_when_the_mirror_comes_to_it() {
    let mirror = Mirror::with(
        "live-lag",
        |cluster| cluster.setting("tailstream.redis_timeout", "500ms"),
        |redis| redis,
    );
    let mut sides = mirror.sides();
    let source = source(&mirror).at(NEVER_QUIET);
    sides.ingest(ORG, 100);
    sides.settle(&[ORG]);
    mirror.redis.pause().expect("SIGSTOP");
    sides.ingest_promptly(ORG, 1_200);
    sides.wait_until_placed();
    let mut reader = Reader::open(&source, None);
    reader.read_pages();
    assert_eq!(reader.events(Some(Order::EventTime)).len(), 1_300);
    let behind = sides.ingest(ORG, 50) << 16;
    // It tries, in vain.
    reader.step();
    mirror.redis.resume().expect("SIGCONT");
    reader.read_until(behind);
    reader.read_until(last_event(&source));
    check(&reader, &mut sides.client);
    assert_eq!(reader.events(None).len(), 51);

    // Where the mirror alone has no Redis, whoever asks the database is not late.
    cut(&mirror, &mut sides);
    let mut asking = Reader::open(&source.at(Pace { quiet: Duration::from_millis(200), ..PACE }), None);
    let unsent = sides.ingest(ORG, 20) << 16;
    asking.read_until(unsent);
    mend(&mirror);
    let last = last_event(&source);
    for reader in [&mut reader, &mut asking] {
        reader.read_until(last);
        check(reader, &mut sides.client);
    }
}

#[test]
fn a_redis_that_lost_its_data_has_readers_miss_and_repeat_nothing() {
    let mut mirror = Mirror::new("live-lost");
    let mut sides = mirror.sides();
    let source = source(&mirror).at(NEVER_QUIET);
    sides.ingest(ORG, 2_000);
    let mut readers = vec![Reader::open(&source, None)];
    for round in 0..6 {
        readers.push(Reader::open(&source, None));
        readers.iter_mut().for_each(Reader::step);
        sides.ingest(ORG, 1_200);
        if round % 3 == 2 {
            mirror.redis.lose_data().expect("loss");
            sides.ingest(ORG, 100);
            mirror.redis.start().expect("Redis");
            sides.redis = mirror.redis.connect().expect("a connection");
        } else {
            redis::cmd("FLUSHALL").exec(&mut sides.redis).expect("FLUSHALL");
        }
        let after = sides.ingest(ORG, 10) << 16;
        // The others come back later.
        readers[round].read_until(after);
    }
    let last = last_event(&source);
    for reader in &mut readers {
        reader.read_until(last);
        check(reader, &mut sides.client);
    }
}

#[test]
fn what_an_outage_left_out_of_the_stream_is_found_in_the_database() {
    let mirror = Mirror::new("live-outage");
    let mut sides = mirror.sides();
    let source = source(&mirror).at(Pace { page_size: 5_000, ..PACE });
    sides
        .client
        .batch_execute("SELECT ts_alter_tier('standard', stream_entries => 100000)")
        .expect("a limit");
    // A stream is swept by 10,000 entries at a time, so this one is not empty before the next entry comes.
    sides.ingest(ORG, 60_000);
    sides.settle(&[ORG]);
    let never_quiet = Pace { quiet: NEVER_QUIET.quiet, ..source.pace };
    let mut waiting = Reader::open(&source.at(never_quiet), None);
    let mut asking = Reader::open(&source, None);
    for outage in 0..3 {
        let before = last_event(&source);
        waiting.read_until(before);
        asking.read_until(before);
        cut(&mirror, &mut sides);
        let left_out = sides.ingest(ORG, 30) << 16;
        let sql = "SELECT ts_alter_tier('standard', stream_age => '1 second')";
        sides.client.batch_execute(sql).expect("an age");
        grow_old(&mut sides);
        mend(&mirror);
        eventually("the mirror to pass over them", PATIENCE, || {
            let status = sides.status();
            (status.state == "running" && status.backlog_events == 0).then_some(())
        });
        // Nothing comes behind them, so only the database knows.
        if outage == 1 {
            asking.read_until(left_out);
        }
        let after = sides.ingest(ORG, 5) << 16;
        waiting.read_until(after);
        asking.read_until(after);
        assert!(waiting.has(left_out) && asking.has(left_out), "outage {outage}");
    }
    let last = last_event(&source);
    for reader in [&mut waiting, &mut asking] {
        reader.read_until(last);
        check(reader, &mut sides.client);
    }
}

#[test]
fn what_came_while_all_mirrors_were_off_is_found_in_the_database() {
    let mirror = Mirror::new("live-off");
    let mut sides = mirror.sides();
    let source = source(&mirror);
    sides.ingest(ORG, 50);
    let mut waiting = Reader::open(&source.at(NEVER_QUIET), None);
    let mut asking = Reader::open(&source, None);
    for _ in 0..2 {
        waiting.read_until(last_event(&source));
        mirror.set("tailstream.mirror_enabled", "off");
        sides.wait_for_state("off");
        let left_out = sides.ingest(ORG, 30) << 16;
        asking.read_until(left_out);
        waiting.step();
        assert!(!waiting.has(left_out));
        mirror.set("tailstream.mirror_enabled", "on");
        sides.wait_for_state("running");
        waiting.read_until(last_event(&source));
        assert!(waiting.has(left_out));
    }
    let last = last_event(&source);
    for reader in [&mut waiting, &mut asking] {
        reader.read_until(last);
        check(reader, &mut sides.client);
    }
}

#[test]
fn what_was_purged_before_it_was_mirrored_is_a_gap() {
    let mirror = Mirror::new("live-purged");
    let mut sides = mirror.sides();
    let source = source(&mirror).at(NEVER_QUIET);
    sides.ingest(ORG, 50);
    sides.settle(&[ORG]);
    let mut reader = Reader::open(&source, None);
    reader.read_pages();
    cut(&mirror, &mut sides);
    tailstream_e2e::cursor::store(&mut sides.client, ORG, &[("/old", 9_000), ("/older", 9_100)]);
    sides.ingest(ORG, 10);
    wait_until_all_placed(&mut sides.client, PATIENCE);
    let expected = stream::expected(&mut sides.client, ORG);
    sides.client.batch_execute("SELECT ts_alter_tier('standard', '1 hour')").expect("a shorter retention");
    sides.client.batch_execute("SELECT * FROM ts_apply_retention()").expect("the purge");
    mend(&mirror);
    reader.read_until(last_event(&source));
    check_gaps(&reader, &expected, "retention");
}
