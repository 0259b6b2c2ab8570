//! Passes unusual intervals and times to every function that takes one. Each is accepted with a documented meaning or
//! is refused, and none stops a worker.

use tailstream_e2e::database::one;
use tailstream_e2e::{Sides, refused, sqlstate};

use crate::database;

/// Accepted, with a documented meaning.
const FINE: &[&str] = &[];
const VALUE: &[&str] = &["22023"];
const TIME: &[&str] = &["22008"];

/// Calls with a placeholder for one interval, and the permitted results of each kind of interval.
struct Lengths {
    call: &'static str,
    null: &'static [&'static str],
    zero: &'static [&'static str],
    months: &'static [&'static str],
    endless: &'static [&'static str],
    long: &'static [&'static str],
}

const LENGTHS: &[Lengths] = &[
    // NULL is no backfill.
    Lengths {
        call: "ts_set_mirror('acme', true, $)",
        null: FINE,
        zero: FINE,
        months: FINE,
        endless: VALUE,
        long: VALUE,
    },
    Lengths {
        call: "ts_create_tier('new', $)",
        null: VALUE,
        zero: VALUE,
        months: VALUE,
        endless: VALUE,
        long: VALUE,
    },
    Lengths {
        call: "ts_create_tier('new', '1 day', 5, $)",
        null: VALUE,
        zero: VALUE,
        months: VALUE,
        endless: VALUE,
        long: VALUE,
    },
    // NULL is no change.
    Lengths {
        call: "ts_alter_tier('premium', $, 5)",
        null: FINE,
        zero: VALUE,
        months: VALUE,
        endless: VALUE,
        long: VALUE,
    },
    Lengths {
        call: "ts_alter_tier('premium', NULL, 5, $)",
        null: FINE,
        zero: VALUE,
        months: VALUE,
        endless: VALUE,
        long: VALUE,
    },
    // Enough events exist, so a fetch returns without waiting for its timeout, however long that is.
    Lengths {
        call: "ts_cursor_fetch('c', 1, $)",
        null: FINE,
        zero: FINE,
        months: FINE,
        endless: FINE,
        long: FINE,
    },
    Lengths {
        call: "ts_replay_schedule('acme', NULL, NULL, max_gap => $)",
        null: &["22004"],
        zero: FINE,
        months: FINE,
        endless: FINE,
        long: FINE,
    },
];

const ZERO: &[&str] = &["0", "0 months"];
const MONTHS: &[&str] = &["1 month", "1 year"];
const ENDLESS: &[&str] = &["infinity"];
const LONG: &[&str] =
    &["36501 days", "178000000 years", "106751991 days", "2147483647 days 2562047788 hours"];
const NEGATIVE: &[&str] =
    &["-1 microsecond", "-1 month", "-36500 days", "-178000000 years", "-infinity", "1 day -25 hours"];
/// The parts add up to a few hours, but adding the parts one after the other to a time would overflow.
const TORN: &[&str] = &[
    "106751991 days -2562047782 hours",
    "-106751991 days +2562047786 hours",
    "5900000 years -2124000000 days",
    "-5900000 years +2124000000 days 2 hours",
];

const TIMES: &[&str] = &[
    "'-infinity'",
    "'4714-11-24 00:00:00 BC'",
    "'0001-01-01'",
    "'294276-12-31 23:59:59.999999'",
    "'infinity'",
    "NULL",
];

/// Calls with a placeholder for one time, and the permitted results for each of `TIMES`.
const TIME_CALLS: &[(&str, [&[&str]; 6])] = &[
    // This function is inlined, so TimescaleDB sees the times, and refuses the last 30 years of the range.
    ("SELECT * FROM ts_replay('acme', $::timestamptz, now())", [TIME, TIME, TIME, TIME, FINE, FINE]),
    (
        "SELECT * FROM ts_replay('acme', now() - interval '1 hour', $::timestamptz)",
        [FINE, FINE, FINE, TIME, FINE, FINE],
    ),
    ("SELECT * FROM ts_replay_page('acme', $::timestamptz, NULL)", [TIME, TIME, TIME, FINE, FINE, FINE]),
    ("SELECT * FROM ts_replay_page('acme', NULL, $::timestamptz)", [FINE; 6]),
    (
        "SELECT * FROM ts_replay_page('acme', $::timestamptz, NULL, direction => 'backward')",
        [TIME, TIME, TIME, FINE, FINE, FINE],
    ),
    ("SELECT * FROM ts_replay_schedule('acme', $::timestamptz, NULL)", [TIME, TIME, TIME, FINE, FINE, FINE]),
    ("SELECT * FROM ts_replay_schedule('acme', NULL, $::timestamptz)", [FINE; 6]),
    (
        "SELECT p.* FROM ts_replay_live('acme', $::timestamptz) l, ts_replay_page('acme', NULL, NULL, l.cursor) p",
        [TIME, TIME, TIME, FINE, FINE, FINE],
    ),
    ("SELECT ts_cursor_create('new', 'acme', $::timestamptz)", [TIME, TIME, TIME, VALUE, VALUE, &["22004"]]),
    (
        "SELECT ts_cursor_create('new', 'acme', $::timestamptz, NULL, 'event_time')",
        [TIME, TIME, TIME, VALUE, VALUE, &["22004"]],
    ),
    ("SELECT ts_cursor_create('new', 'acme', $::text)", [TIME, TIME, TIME, VALUE, VALUE, &["22004"]]),
    ("SELECT ts_cursor_seek('c', $::timestamptz)", [TIME, TIME, TIME, VALUE, VALUE, &["22004"]]),
    ("SELECT ts_cursor_seek('c', $::text)", [TIME, TIME, TIME, VALUE, VALUE, &["22004"]]),
    (
        "INSERT INTO tailstream.log_events (org_id, created_at) VALUES ('acme', $)",
        [TIME, FINE, FINE, TIME, TIME, FINE],
    ),
    (
        "SELECT ts_event(e) FROM (SELECT $::timestamptz AS created_at) e",
        [TIME, FINE, FINE, FINE, TIME, &["42804"]],
    ),
    ("SELECT tailstream.is_retained('acme', $::timestamptz)", [FINE; 6]),
    ("SELECT tailstream.replay_floor('acme', $::timestamptz)", [TIME, TIME, TIME, FINE, FINE, FINE]),
    (
        "SELECT * FROM tailstream.cursor_lag('acme', true, $::timestamptz, 0, 0)",
        [FINE, FINE, FINE, TIME, FINE, FINE],
    ),
    (
        "SELECT * FROM tailstream.cursor_lag('acme', false, $::timestamptz, 0, 0)",
        [FINE, FINE, FINE, TIME, FINE, FINE],
    ),
];

/// Settings whose values are lengths of time.
const LENGTHS_SET: &[&str] =
    &["max_future_skew", "idempotency_window", "rejected_retention", "purge_lock_timeout", "cursor_ttl"];

/// Runs the statement in a transaction that commits, because an accepted value must not do harm later either.
fn check(sides: &mut Sides, sql: &str, expected: &[&str], wrong: &mut Vec<String>) {
    let ended = sides.client.simple_query(sql);
    let said = match ended {
        Ok(_) if expected.is_empty() => None,
        Ok(_) => Some("succeeded".to_owned()),
        Err(error) if expected.contains(&sqlstate(&error).as_str()) => {
            let error = error.as_db_error().expect("an error of PostgreSQL");
            let is_clear = error.detail().is_some() || error.hint().is_some() || says_all(error);
            (!is_clear).then(|| format!("neither detail nor hint: {error}"))
        }
        Err(error) => Some(format!("{} {error:?}", sqlstate(&error))),
    };
    wrong.extend(said.map(|said| format!("{sql}: {said}, expected {expected:?}")));
    // Drops the cursor that the statement may have created.
    let _ = sides.client.simple_query("SELECT ts_cursor_drop('new')");
    let _ = sides.client.simple_query("SELECT ts_drop_tier('new')");
}

/// Whether the error is "argument is NULL", "not an event", or an error of TimescaleDB about a time in any query.
fn says_all(error: &postgres::error::DbError) -> bool {
    ["22004", "42804"].contains(&error.code().code())
        || error.routine() == Some("ts_pg_timestamp_to_unix_microseconds")
}

#[test]
fn every_interval_and_time_is_accepted_or_refused_and_workers_continue() {
    let (_database, mut sides) = database("arguments");
    sides.ingest("acme", 3);
    sides.ingest("other", 3);
    sides.settle(&["acme", "other"]);
    sides.client.batch_execute("SELECT ts_cursor_create('c', 'acme')").expect("a cursor");
    // PostgreSQL 17 introduced infinite intervals.
    let has_infinity =
        one::<i32>(&mut sides.client, "SELECT current_setting('server_version_num')::int") >= 170_000;
    let mut wrong = Vec::new();
    for lengths in LENGTHS {
        let is_fetch = lengths.call.contains("fetch") || lengths.call.contains("schedule");
        let torn = if is_fetch { FINE } else { VALUE };
        let kinds = [
            (ZERO, lengths.zero),
            (MONTHS, lengths.months),
            (ENDLESS, lengths.endless),
            (LONG, lengths.long),
            (NEGATIVE, VALUE),
            (TORN, torn),
        ];
        check(
            &mut sides,
            &format!("SELECT * FROM {}", lengths.call.replace('$', "NULL")),
            lengths.null,
            &mut wrong,
        );
        for (values, expected) in kinds {
            for value in values.iter().filter(|value| has_infinity || !value.contains("infinity")) {
                let call = lengths.call.replace('$', &format!("'{value}'"));
                check(&mut sides, &format!("SELECT * FROM {call}"), expected, &mut wrong);
            }
        }
    }
    for (call, expected) in TIME_CALLS {
        for (time, expected) in TIMES.iter().zip(expected) {
            check(&mut sides, &call.replace('$', time), expected, &mut wrong);
        }
    }
    for setting in LENGTHS_SET {
        for value in
            ["infinity", "-infinity", "-2s", "1 month", "1e400", "100000d", "NaN", "", "9223372036854775807d"]
        {
            let sql = format!("SET tailstream.{setting} = '{value}'");
            // Or a session cannot set it at all.
            refused(&sql, sides.client.simple_query(&sql), &["22023", "55P02"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    sides
        .client
        .batch_execute("SELECT ts_set_mirror('acme', true, '1 hour'), ts_apply_retention()")
        .expect("a backfill");
    sides.ingest("acme", 2);
    sides.ingest("other", 2);
    sides.settle(&["acme", "other"]);
}

#[test]
fn the_longest_intervals_work_everywhere() {
    let (_database, mut sides) = database("longest");
    sides
        .client
        .batch_execute(
            "SELECT ts_create_tier('century', '36500 days', 5000, '36500 days'), ts_set_org_tier('acme', 'century');
             SELECT ts_alter_tier('premium', '2400 hours', NULL, '36499 days 24 hours')",
        )
        .expect("tiers");
    sides.ingest("acme", 3);
    sides
        .client
        .batch_execute(
            "SELECT ts_ingest('acme', '{\"created_at\": \"1930-01-01T00:00:00Z\", \"path\": \"/old\"}');
             SELECT ts_set_mirror('acme', true, '36500 days');
             SELECT * FROM ts_replay_window('acme'), ts_apply_retention(), ts_health(), ts_mirror_status('acme')",
        )
        .expect("what reads tiers");
    let seen = "SELECT count(*) FROM ts_replay('acme', now() - interval '36499 days', now())";
    assert_eq!(one::<i64>(&mut sides.client, seen), 4);
    let pages = "SELECT count(*) FROM ts_replay_page('acme', NULL, NULL)";
    assert_eq!(one::<i64>(&mut sides.client, pages), 4);
    let due = "SELECT count(*) FROM ts_retention_preview() WHERE chunks_dropped > 0";
    assert_eq!(one::<i64>(&mut sides.client, due), 0);
}

/// Unusual values in the row of one org do not stop the streams of other orgs.
#[test]
fn an_infinite_mirror_from_of_one_org_affects_no_other_org() {
    let (_database, mut sides) = database("endless");
    for org in ["always", "never", "far", "other"] {
        sides.ingest(org, 2);
    }
    sides.settle(&["always", "never", "far", "other"]);
    sides
        .client
        .batch_execute(
            "UPDATE tailstream.orgs SET mirror_snapshot = NULL, mirror_from = CASE org_id
                 WHEN 'always' THEN '-infinity' WHEN 'never' THEN 'infinity' WHEN 'far' THEN '294276-12-31' END::timestamptz
             WHERE org_id <> 'other';
             INSERT INTO tailstream.mirror_rebuilds (org_id, reason) SELECT org_id, 'backfill' FROM tailstream.orgs",
        )
        .expect("rows written by hand");
    sides.ingest("always", 2);
    let unseen = sides.ingest("never", 2);
    sides.ingest("other", 2);
    sides.settle(&["always", "other"]);
    let never = sides.stream("never");
    assert!(never.iter().all(|entry| entry.event_id >> 16 != unseen), "{never:?}");
}
