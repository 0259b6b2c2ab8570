//! Tests of what lives inside one transaction.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    fn one<T: FromDatum + IntoDatum>(query: &str) -> T {
        match Spi::get_one::<T>(query) {
            Ok(Some(value)) => value,
            other => panic!("{query}: {:?}", other.map(|_| "NULL")),
        }
    }

    /// The SQLSTATE and message that a statement fails with.
    fn failure(statement: &str) -> String {
        Spi::run(
            "CREATE OR REPLACE FUNCTION pg_temp.failure(statement text) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN EXECUTE statement; RETURN 'none';
             EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$",
        )
        .expect("a helper function");
        one(&format!("SELECT pg_temp.failure($s${statement}$s$)"))
    }

    #[pg_test]
    fn version_is_the_packages() {
        assert_eq!(one::<String>("SELECT ts_version()"), env!("CARGO_PKG_VERSION"));
    }

    #[pg_test]
    fn a_batch_has_consecutive_ids() {
        Spi::run(r#"SELECT ts_ingest('ids', '[{"path":"/a"},{"path":"/b"},{"path":"/c"}]')"#)
            .expect("ingest");
        let offsets: Vec<i64> =
            one("SELECT array_agg(id & 65535 ORDER BY path) FROM tailstream.events WHERE org_id = 'ids'");
        assert_eq!(offsets, [0, 1, 2]);
        let batches: i64 = one("SELECT count(DISTINCT id >> 16) FROM tailstream.events WHERE org_id = 'ids'");
        assert_eq!(batches, 1);
    }

    #[pg_test]
    fn more_than_65536_events_take_several_batch_ids() {
        Spi::run("SELECT ts_ingest('many', (SELECT json_agg(json_build_object('path', n)) FROM (SELECT '/' || n AS n FROM generate_series(1, 65537) n) x))")
            .expect("ingest");
        let ids: i64 = one("SELECT count(DISTINCT id) FROM tailstream.events WHERE org_id = 'many'");
        assert_eq!(ids, 65_537);
        let counts: Vec<i32> = one(
            "SELECT array_agg(event_count ORDER BY batch_id) FROM tailstream.batches WHERE org_id = 'many'",
        );
        assert_eq!(counts, [65_536, 1]);
    }

    #[pg_test]
    fn an_event_at_the_floor_is_kept_and_one_before_it_is_not() {
        for (microseconds, accepted) in [(0, 1), (1, 0)] {
            let stored: i32 = one(&format!(
                "SELECT accepted FROM ts_ingest('edge', json_build_object('created_at',
                     statement_timestamp() - interval '3 hours' - interval '{microseconds} microseconds'))"
            ));
            assert_eq!(stored, accepted, "{microseconds} µs before the floor");
        }
    }

    #[pg_test]
    fn a_change_of_tier_is_seen_at_once_and_undone_by_a_rollback() {
        Spi::run("SELECT ts_ingest('moved', '{}')").expect("ingest");
        let retention = || one::<String>("SELECT retention::text FROM ts_replay_window('moved')");
        assert_eq!(retention(), "03:00:00");
        Spi::run("DO $$ BEGIN PERFORM ts_set_org_tier('moved', 'premium'); PERFORM ts_replay_window('moved'); RAISE EXCEPTION 'undo';
                  EXCEPTION WHEN raise_exception THEN NULL; END $$").expect("a subtransaction");
        assert_eq!(retention(), "03:00:00");
        Spi::run("SELECT ts_set_org_tier('moved', 'premium')").expect("upgrade");
        assert_eq!(retention(), "7 days");
    }

    #[pg_test]
    fn a_registration_that_is_rolled_back_is_not_remembered() {
        Spi::run(
            "DO $$ BEGIN PERFORM ts_ingest('ghost', '{}'); RAISE EXCEPTION 'undo';
                  EXCEPTION WHEN raise_exception THEN NULL; END $$",
        )
        .expect("a subtransaction");
        Spi::run("SELECT ts_ingest('ghost', '{}')").expect("ingest");
        assert_eq!(one::<i64>("SELECT count(*) FROM tailstream.orgs WHERE org_id = 'ghost'"), 1);
    }

    #[pg_test]
    fn a_replay_that_starts_too_early_says_from_when_on_it_may() {
        for start in ["now() - interval '4 hours'", "'2020-01-01'::timestamptz"] {
            let message = failure(&format!("SELECT * FROM ts_replay('nobody', {start}, now())"));
            assert!(message.starts_with("22008 replay of org \"nobody\" starts at"), "{message}");
        }
        assert_eq!(
            failure("SELECT * FROM ts_replay('nobody', now() - interval '3 hours 59 seconds', now())"),
            "none"
        );
    }

    #[pg_test]
    fn a_replay_is_inlined_and_streams_in_index_order() {
        Spi::run("SELECT ts_ingest('plan', '[{},{}]')").expect("ingest");
        let plan: String = {
            let lines: Vec<String> = Spi::connect(|client| {
                let rows = client.select(
                    "EXPLAIN (COSTS OFF) SELECT * FROM ts_replay('plan', now() - interval '1 hour', now())
                     WHERE status >= 500 ORDER BY created_at, id LIMIT 10", None, &[]).expect("a plan");
                rows.filter_map(|row| row.get::<String>(1).ok().flatten()).collect()
            });
            lines.join("\n")
        };
        assert!(plan.contains("Index Scan"), "{plan}");
        assert!(!plan.contains("Function Scan"), "{plan}");
        assert!(!plan.contains("Sort\n"), "{plan}");
    }

    #[pg_test]
    fn a_longer_retention_shows_what_was_hidden() {
        Spi::run(
            "SELECT ts_create_tier('elastic', '1 day'), ts_set_org_tier('bands', 'elastic'),
                         ts_ingest('bands', json_build_object('created_at', now() - interval '2 hours'))",
        )
        .expect("ingest");
        let shown = || one::<i64>("SELECT count(*) FROM tailstream.log_events WHERE org_id = 'bands'");
        Spi::run("SELECT ts_alter_tier('elastic', '1 hour')").expect("a shorter retention");
        assert_eq!(shown(), 0);
        Spi::run("SELECT ts_alter_tier('elastic', '3 hours')").expect("a longer retention");
        assert_eq!(shown(), 1);
        assert_eq!(failure("SELECT ts_alter_tier('none', '1 hour')"), "42704 tier \"none\" does not exist");
    }

    #[pg_test]
    fn the_planner_expects_nearly_all_rows_to_be_retained() {
        Spi::run("SELECT ts_ingest('estimate', (SELECT json_agg('{}'::json) FROM generate_series(1, 1000)))")
            .expect("ingest");
        Spi::run("ANALYZE tailstream.events").expect("statistics");
        let plan = one::<pgrx::Json>("EXPLAIN (FORMAT JSON) SELECT * FROM tailstream.log_events").0;
        let rows = plan[0]["Plan"]["Plan Rows"].as_f64().unwrap();
        assert!(rows > 900.0, "{rows} rows expected of 1,000");
    }

    #[pg_test]
    fn chunks_are_the_same_in_every_date_format_and_zone() {
        Spi::run("SELECT ts_ingest('zones', '{}')").expect("ingest");
        let ranges = || {
            one::<String>("SELECT string_agg(extract(epoch FROM range_start) || '-' || extract(epoch FROM range_end), ',' ORDER BY range_start)
                                       FROM tailstream.chunks('tailstream.events', 'created_at')")
        };
        let expected = ranges();
        for (style, zone) in
            [("SQL, DMY", "Asia/Kolkata"), ("Postgres, MDY", "Europe/Dublin"), ("German", "Pacific/Guam")]
        {
            Spi::run(&format!("SET LOCAL datestyle = '{style}'; SET LOCAL timezone = '{zone}'"))
                .expect("settings");
            assert_eq!(ranges(), expected, "{style} {zone}");
        }
    }

    #[pg_test]
    fn chunks_are_made_ahead_and_stay_empty() {
        Spi::run(
            r#"SELECT ts_ingest('ahead', '[{"path":"/a"},{"status":"none"}]', on_invalid => 'quarantine')"#,
        )
        .expect("ingest");
        Spi::run(
            "INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                               first_event_at, last_event_at, events_before)
             VALUES (1, now(), 0, 1, '3', 'ahead', 1, 1, now(), now(), 0)",
        )
        .expect("a position");
        let tables = [
            ("events", "created_at"),
            ("batches", "received_at"),
            ("rejected_events", "received_at"),
            ("positions", "placed_at"),
        ];
        // One in each call.
        let mut made = 0;
        while one::<bool>("SELECT tailstream.make_next_chunk('7 days')") {
            made += 1;
        }
        assert!(made >= tables.len(), "{made} chunks were made");
        for (table, time) in tables {
            let chunks: i64 = one(&format!(
                "SELECT count(*) FROM tailstream.chunks('tailstream.{table}', '{time}') c
                 WHERE c.range_start <= now() + interval '7 days' AND now() + interval '7 days' < c.range_end"
            ));
            assert_eq!(chunks, 1, "{table}");
            let rows: i64 = one(&format!(
                "SELECT count(*) FROM tailstream.{table} WHERE {time} > now() + interval '1 day'"
            ));
            assert_eq!(rows, 0, "{table}");
        }
        assert_eq!(
            one::<i64>("SELECT count(*) FROM tailstream.missing_chunks('7 days')"),
            0,
            "they are there"
        );
    }

    #[pg_test]
    fn a_day_of_retention_has_24_hours_where_clocks_change() {
        Spi::run(
            "SET LOCAL timezone = 'Australia/Sydney';
                  SELECT ts_create_tier('half', '183 days'), ts_set_org_tier('half', 'half');
                  INSERT INTO tailstream.events (id, created_at, org_id, tier)
                  SELECT n, clock_timestamp() - make_interval(hours => 183 * 24 + n, mins => 30), 'half', t.id
                  FROM generate_series(-4, 4) n, tailstream.tiers t WHERE t.name = 'half'",
        )
        .expect("old events");
        let wrong: i64 = one(
            "SELECT count(*) FROM tailstream.chunks('tailstream.events', 'created_at') c
             FULL JOIN tailstream.expired_chunks() x ON x.chunk = c.chunk
             WHERE (x.chunk IS NOT NULL) <> (c.range_end <= clock_timestamp() - make_interval(hours => 183 * 24, secs => 10))",
        );
        assert_eq!(wrong, 0);
        assert!(one::<i64>("SELECT count(*) FROM tailstream.expired_chunks()") > 0);
        let readable: i64 = one("SELECT count(*) FROM tailstream.log_events WHERE org_id = 'half'");
        assert_eq!(readable, 4);
    }

    #[pg_test]
    fn a_tier_in_use_is_not_dropped() {
        Spi::run("SELECT ts_create_tier('brief', '10 minutes'), ts_set_org_tier('user', 'brief')")
            .expect("a tier");
        assert_eq!(failure("SELECT ts_drop_tier('brief')"), "2BP01 tier \"brief\" is in use");
        Spi::run("SELECT ts_set_org_tier('user', 'standard'), ts_drop_tier('brief')").expect("unused by now");
    }

    #[pg_test]
    fn wrong_arguments_have_their_own_sqlstates() {
        for (statement, expected) in [
            ("SELECT ts_ingest(NULL, '{}')", "22004 argument \"org\" is NULL"),
            ("SELECT ts_ingest('', '{}')", "22023 org id is empty"),
            ("SELECT ts_ingest(repeat('x', 256), '{}')", "22023 org id has 256 characters"),
            ("SELECT ts_ingest('a', NULL)", "22004 argument \"events\" is NULL"),
            ("SELECT ts_ingest('a', '{}', '')", "22023 idempotency key has 0 characters"),
            ("SELECT ts_ingest('a', '{}', on_invalid => 'x')", "22023 on_invalid is \"x\""),
            ("SELECT ts_ingest('a', '7')", "22032 expected"),
            ("SELECT ts_erase_org(NULL)", "22004 argument \"org\" is NULL"),
            ("SELECT ts_event(ROW(1, 2))", "42804 the row is not an event"),
            ("INSERT INTO tailstream.log_events (path) VALUES ('/')", "23502 column \"org_id\""),
            ("SELECT ts_schedule_retention(NULL)", "22004 argument \"schedule\" is NULL"),
            ("SELECT ts_create_tier('m', '1 month')", "22023 tier \"m\": retention 1 mon is not usable"),
            ("SELECT ts_set_org_tier('a', 'gold')", "42704 tier \"gold\" does not exist"),
        ] {
            let message = failure(statement);
            assert!(message.starts_with(expected), "{statement}: {message}");
        }
    }

    #[pg_test]
    fn erasing_an_org_leaves_nothing_of_it() {
        Spi::run(r#"SELECT ts_ingest('gone', '[{},{"status":"x"}]', 'key', 'quarantine'), ts_ingest('stays', '{}')"#).expect("ingest");
        assert_eq!(one::<String>("SELECT ts_erase_org('gone')::text"), "(1,1,1)");
        for table in ["events", "batches", "rejected_events", "orgs"] {
            assert_eq!(
                one::<i64>(&format!("SELECT count(*) FROM tailstream.{table} WHERE org_id = 'gone'")),
                0,
                "{table}"
            );
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM tailstream.events WHERE org_id = 'stays'"), 1);
    }

    /// Runs an INSERT of three rows of which the caller wants the first only.
    fn insert_cut_short(path: &str) {
        let sql = format!(
            "INSERT INTO tailstream.log_events (org_id, path) SELECT 'cut', '{path}' FROM generate_series(1, 3) RETURNING id"
        );
        Spi::connect_mut(|client| client.update(&sql, Some(1), &[]).map(|table| assert_eq!(table.len(), 1)))
            .unwrap();
    }

    #[pg_test]
    fn rows_of_a_statement_that_was_cut_short_are_stored_by_the_next() {
        insert_cut_short("/cut");
        Spi::run("INSERT INTO tailstream.log_events (org_id, path) VALUES ('cut', '/whole')").unwrap();
        let paths = "SELECT string_agg(path, ' ' ORDER BY id) FROM tailstream.events WHERE org_id = 'cut'";
        assert_eq!(Spi::get_one::<String>(paths).unwrap().as_deref(), Some("/cut /whole"));
    }

    #[pg_test]
    fn rows_of_a_statement_that_was_cut_short_are_stored_at_the_end() {
        insert_cut_short("/cut");
        crate::ingest::view::pending::store_remaining();
        let stored = "SELECT count(*) FROM tailstream.events WHERE org_id = 'cut'";
        assert_eq!(Spi::get_one::<i64>(stored).unwrap(), Some(1));
    }

    /// The planner's bounds of an interval hold wherever and whenever it is added.
    #[pg_test]
    fn an_interval_moves_no_time_beyond_its_bounds() {
        let intervals = "'{1 hour,-90 minutes,1 day,-1 day,36 hours,1 day 2 hours,1 mon,-1 mon,1 mon -30 days,1 year 1 day,-13 mons 5 days 3 hours,7 days}'::interval[]";
        for zone in ["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Tehran"] {
            Spi::run(&format!("SET LOCAL timezone = '{zone}'")).expect("a time zone");
            let moved = format!(
                "SELECT i, min(1000000 * extract(epoch FROM (t + i) - t))::bigint, max(1000000 * extract(epoch FROM (t + i) - t))::bigint
                 FROM unnest({intervals}) i, generate_series('2011-12-01'::timestamptz, '2012-12-31', interval '7 hours 13 minutes') t
                 GROUP BY i"
            );
            Spi::connect(|client| {
                for row in client.select(&moved, None, &[]).unwrap() {
                    let interval = row.get::<Interval>(1).unwrap().unwrap();
                    let (least, most) =
                        (row.get::<i64>(2).unwrap().unwrap(), row.get::<i64>(3).unwrap().unwrap());
                    let raw = pg_sys::Interval {
                        time: interval.micros(),
                        day: interval.days(),
                        month: interval.months(),
                    };
                    let (from, to) = crate::replay::interval_bounds(raw).expect("bounds");
                    assert!(
                        from <= least && most <= to,
                        "{zone}: {interval:?}: {from}..{to}, moved by {least}..{most}"
                    );
                }
            });
        }
    }
}
