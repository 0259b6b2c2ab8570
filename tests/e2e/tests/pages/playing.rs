//! What `ts_replay_schedule` says of random events, against the formula.

use std::time::Instant;

use postgres::Client;
use serde_json::json;
use tailstream_devkit::event::now_micros;
use tailstream_e2e::{Database, Random, budget};

use crate::clock::Clock;
use crate::page::Place;
use crate::schedule::{Play, Schedule, timeline};
use crate::{HOUR, MINUTE};

const SECOND: i64 = 1_000_000;

/// Bursts, events of one time, and quiet stretches.
fn times(random: &mut Random, start: i64) -> Vec<i64> {
    let mut at = start;
    let mut times = Vec::new();
    // Now and then more than are read at a time.
    let count = if random.chance(20) { random.between(900, 3100) } else { random.between(1, 400) };
    for _ in 0..count {
        at += match random.below(100) {
            0..30 => 0,
            30..60 => random.between(1, 100),
            60..85 => random.between(1, 50_000),
            85..99 => random.between(1, 3 * SECOND),
            _ => random.between(1, 10 * MINUTE),
        };
        times.push(at);
    }
    times
}

/// Stores events with these times; every third is a failure. Returns their places.
fn store(client: &mut Client, org: &str, times: &[i64]) -> Vec<Place> {
    client.execute("SELECT ts_set_org_tier($1, 'premium')", &[&org]).expect("a tier");
    let sql = "INSERT INTO tailstream.events (id, created_at, org_id, tier, status)
               SELECT id, 'epoch'::timestamptz + at * interval '1 microsecond', $1, 1 + id % 2, CASE id % 3 WHEN 0 THEN 500 ELSE 200 END
               FROM unnest($2::bigint[]) WITH ORDINALITY u(at, id) ORDER BY hashint8(id)";
    client.execute(sql, &[&org, &times]).expect("events");
    times.iter().copied().zip(1..).collect()
}

/// Sessions that plan differently; the second reads the barrier view.
fn sessions(database: &Database) -> [Client; 4] {
    let settings = [
        "",
        "",
        "SET plan_cache_mode = force_generic_plan; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'",
        "SET enable_indexscan = off; SET enable_bitmapscan = off; SET timescaledb.enable_chunk_append = off; SET datestyle = 'SQL, DMY'",
    ];
    settings.map(|settings| {
        let mut client = database.connect();
        client.batch_execute(settings).expect("settings");
        client
    })
}

/// Nowhere are there more events in a second than permitted.
#[track_caller]
fn check_rate(plays: &[Play], max_rate: i32) {
    assert!(plays.is_sorted_by_key(Play::at), "play_at goes back");
    for pair in plays.windows((max_rate as usize).saturating_add(1)) {
        let span = pair[pair.len() - 1].at() - pair[0].at();
        assert!(span >= SECOND, "{} events within {span} µs, {max_rate} a second are permitted", pair.len());
    }
}

/// From whichever row it goes on, each event has the time that it had.
#[track_caller]
fn check_resumption(client: &mut Client, random: &mut Random, schedule: &Schedule<'_>, plays: &[Play]) {
    let whole = timeline(plays);
    for _ in 0..4 {
        let number = random.below(plays.len());
        let rest = schedule.after(&plays[number]).plays(client);
        assert_eq!(timeline(&rest), whole[number + 1..], "behind row {number}: {schedule:?}");
    }
    let size = 1 + random.below(100);
    let mut next = schedule.clone();
    let mut pieces: Vec<Play> = Vec::new();
    for _ in 0..20 {
        let piece = next.try_first(client, size as i64).expect("a piece");
        let Some(last) = piece.last() else { break };
        next = schedule.after(last);
        pieces.extend(piece);
    }
    let read = whole.len().min(20 * size);
    assert_eq!(timeline(&pieces), whole[..read], "in pieces of {size}: {schedule:?}");
}

#[test]
fn a_schedule_is_what_its_formula_says() {
    let mut random = Random::new("schedule");
    let database = crate::database("playing");
    let mut writer = database.connect();
    let mut sessions = sessions(&database);
    let start = now_micros() - 5 * HOUR;
    let until = Instant::now() + budget(12.0);
    let mut cases = 0;
    while Instant::now() < until || cases < 8 {
        let org = format!("org-{cases}");
        let mut places = store(&mut writer, &org, &times(&mut random, start));
        let session = random.below(sessions.len());
        let client = &mut sessions[session];
        if session == 1 {
            client.batch_execute(&format!("SET tailstream.org = '{org}'")).expect("a bound session");
        }
        let even = random.chance(60);
        let clock = if even { Clock::even(&mut random) } else { Clock::odd(&mut random) };
        let mut schedule = Schedule { clock, ..Schedule::of(&org, start) };
        if random.chance(30) {
            schedule.filter = Some(json!({ "status": "5xx" }));
            places.retain(|(_, id)| id % 3 == 0);
        }
        let plays = schedule.plays(client);
        check_formula(&clock, even, &places, &plays);
        check_rate(&plays, clock.max_rate);
        if !plays.is_empty() {
            check_resumption(client, &mut random, &schedule, &plays);
        }
        cases += 1;
    }
    println!("{cases} schedules");
}

/// To the microsecond, or within what rounding each step to a nanosecond can add up to.
#[track_caller]
fn check_formula(clock: &Clock, even: bool, places: &[Place], plays: &[Play]) {
    let found = timeline(plays);
    let events: Vec<Place> = found.iter().map(|(place, _)| *place).collect();
    assert_eq!(events, places);
    let times: Vec<i64> = places.iter().map(|(at, _)| *at).collect();
    let slack = if even { 0 } else { 1 + places.len() as i64 / 500 };
    for (number, (expected, (_, at))) in clock.plays(&times).into_iter().zip(&found).enumerate() {
        let difference = (at - expected).abs();
        assert!(difference <= slack, "row {number} is played at {at} and not {expected} µs: {clock:?}");
    }
}

#[test]
fn rates_hold_for_a_burst_of_one_time() {
    let database = crate::database("burst");
    let mut client = database.connect();
    let start = now_micros() - HOUR;
    let places = store(&mut client, "acme", &[start; 3000]);
    for max_rate in [3, 7, 999, 1000, 2999] {
        let clock = Clock { max_rate, ..Clock::default() };
        let plays = Schedule { clock, ..Schedule::of("acme", start) }.plays(&mut client);
        assert_eq!(plays.len(), places.len());
        check_rate(&plays, max_rate);
        let last = plays[plays.len() - 1].at();
        let expected = 2999 * SECOND / i64::from(max_rate);
        assert!((expected..=expected + 5).contains(&last), "{max_rate} a second last {last} µs");
    }
}

#[test]
fn a_clock_that_is_changed_on_the_way_does_not_go_back() {
    let database = crate::database("changed_clock");
    let mut random = Random::new("changed clock");
    let mut client = database.connect();
    let start = now_micros() - 5 * HOUR;
    let mut times = times(&mut random, start);
    times.extend([start + 4 * HOUR, start + 4 * HOUR + SECOND]);
    let places = store(&mut client, "acme", &times);
    let schedule = Schedule::of("acme", start);
    let plays = schedule.plays(&mut client);
    for number in [0, plays.len() / 2, plays.len() - 2] {
        let clock = Clock { speed: 64.0, max_gap: SECOND / 2, max_rate: 100_000 };
        let faster = Schedule { clock, ..schedule.after(&plays[number]) };
        // Other arguments than those of the token may be refused; they must not have time go back.
        if let Ok(rest) = faster.try_plays(&mut client) {
            check_rate(&rest, clock.max_rate);
            let events: Vec<Place> = timeline(&rest).iter().map(|(place, _)| *place).collect();
            assert_eq!(events, places[number + 1..]);
            assert!(rest[0].at() >= plays[number].at(), "{} after {}", rest[0].at(), plays[number].at());
        }
    }
}
