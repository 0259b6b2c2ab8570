//! Arguments of `ts_replay_schedule` that are refused, and extreme ones that are not.

use tailstream_devkit::event::now_micros;
use tailstream_e2e::{refused, sqlstate};

use crate::HOUR;
use crate::clock::Clock;
use crate::schedule::{Play, Schedule};

const WRONG: &[(&str, &[&str])] = &[
    ("speed => 0", &["22023"]),
    ("speed => '-0'", &["22023"]),
    ("speed => -1", &["22023"]),
    ("speed => 'NaN'", &["22023"]),
    ("speed => 'infinity'", &["22023"]),
    ("speed => '-infinity'", &["22023"]),
    ("max_gap => '-1 microsecond'", &["22023"]),
    ("max_gap => '-1 month 1 day'", &["22023"]),
    ("max_gap => '-infinity'", &["22023"]),
    ("max_rate => 0", &["22023"]),
    ("max_rate => -5000", &["22023"]),
    ("max_rate => -2147483648", &["22023"]),
    ("filter => '[]'", &["22023"]),
    ("filter => '{\"speed\": 1}'", &["22023"]),
    ("filter => '{\"status\": \"all\"}'", &["22023"]),
    ("after => ''", &["22023"]),
    ("after => 'AAAA'", &["22023"]),
];

#[test]
fn wrong_arguments_are_refused_whether_there_are_events_or_not() {
    let database = crate::database("schedule_wrong");
    let mut client = database.connect();
    client.execute("SELECT ts_ingest('acme', '[{},{},{}]')", &[]).expect("ingest");
    for (arguments, states) in WRONG {
        for org in ["acme", "unknown"] {
            let sql = format!(
                "SELECT * FROM ts_replay_schedule('{org}', now() - interval '1 hour', now() + interval '1 minute', {arguments})"
            );
            refused(&sql, client.query(&sql, &[]), states);
        }
    }
    let early = "SELECT * FROM ts_replay_schedule('acme', now() - interval '4 hours', now())";
    refused(early, client.query(early, &[]), &["22008"]);
    let nobody = "SELECT * FROM ts_replay_schedule('', now() - interval '1 hour', now())";
    refused(nobody, client.query(nobody, &[]), &["22023"]);
}

#[test]
fn extreme_arguments_do_not_wrap() {
    let database = crate::database("extreme");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT ts_set_org_tier('acme', 'premium');
             INSERT INTO tailstream.events (id, created_at, org_id, tier)
             SELECT n, date_trunc('hour', now()) - n * interval '1 hour', 'acme', 2 FROM generate_series(1, 20) n",
        )
        .expect("events");
    let century = 100 * 365 * 24 * HOUR;
    for speed in [5e-324, 1e-300, 1e-9, 1.0, 1e300, f64::MAX] {
        for max_gap in [0, 1, 1000 * HOUR, century, 20 * century] {
            for max_rate in [1, i32::MAX] {
                let clock = Clock { speed, max_gap, max_rate };
                let schedule = Schedule { clock, ..Schedule::of("acme", now_micros() - 21 * HOUR) };
                check_extreme(clock, schedule.try_plays(&mut client));
            }
        }
    }
}

/// Refused, or what 20 events an hour apart come to. A clock of nanoseconds may stand still after 292 years.
#[track_caller]
fn check_extreme(clock: Clock, plays: Result<Vec<Play>, postgres::Error>) {
    match plays {
        Err(error) => assert!(sqlstate(&error).starts_with("22"), "{clock:?}: {error:?}"),
        Ok(plays) => {
            assert_eq!((plays.len(), plays[0].at()), (20, 0), "{clock:?}");
            assert!(plays.is_sorted_by_key(Play::at), "{clock:?}: {plays:?}");
            let step =
                (HOUR as f64 / clock.speed).min(clock.max_gap as f64).max(1e6 / f64::from(clock.max_rate));
            let expected = (19.0 * step).min(i64::MAX as f64 / 1000.0);
            let last = plays[19].at() as f64;
            assert!((last - expected).abs() <= 20.0 + expected * 1e-9, "{clock:?}: {last} is not {expected}");
        }
    }
}
