//! The purge among readers: it gives way, it catches up, and it holds nobody up for long.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::{Database, Server, eventually, refused};

fn database(name: &str) -> Database {
    Database::new(&Server::shared("purge"), name)
}

/// Events of a premium org and of a standard one in each of some hours that standard keeps no longer.
fn store_old(client: &mut Client, hours: i32) {
    client
        .batch_execute(&format!(
            "SELECT ts_set_org_tier('gold', 'premium');
             INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
             SELECT h * 100 + n, now() - (5 + h) * interval '1 hour', org, tier, n::text
             FROM generate_series(1, {hours}) h, generate_series(1, 50) n, (VALUES ('gold', 2), ('tin', 1)) o(org, tier)"
        ))
        .expect("old events");
}

fn purge(client: &mut Client) -> i64 {
    one(client, "SELECT coalesce(sum(chunks_dropped), -1) FROM ts_apply_retention()")
}

fn somebody_waits(client: &mut Client) -> Option<()> {
    let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    one::<bool>(client, sql).then_some(())
}

const REPLAY: &str = "SELECT count(*) FROM ts_replay('gold', now() - interval '2 days', now())";

#[test]
fn a_purge_behind_a_long_replay_gives_way_and_catches_up() {
    let database = database("long_replay");
    let (mut purger, mut watch) = (database.connect(), database.connect());
    store_old(&mut purger, 1);
    let mut viewer = database.connect();
    let mut replay = viewer.transaction().expect("a transaction");
    replay
        .batch_execute(
            "DECLARE replay CURSOR FOR SELECT path FROM ts_replay('gold', now() - interval '2 days', now()) ORDER BY created_at, id",
        )
        .expect("a cursor");
    assert_eq!(column::<String>(&mut replay, "FETCH 1 FROM replay"), ["1"]);

    purger.batch_execute("SET tailstream.purge_lock_timeout = '1500ms'").expect("patience");
    thread::scope(|scope| {
        let purging = scope.spawn(|| {
            let began = Instant::now();
            (purge(&mut purger), began.elapsed())
        });
        eventually("the purge to wait for the replay", Duration::from_secs(20), || {
            somebody_waits(&mut watch)
        });
        let began = Instant::now();
        assert_eq!(one::<i64>(&mut watch, REPLAY), 50, "a reader behind the waiting purge");
        let read = began.elapsed();
        assert!(read < Duration::from_millis(1500 + 1000), "the reader waited {read:?}");
        let (dropped, took) = purging.join().expect("the purge");
        assert_eq!(dropped, 0, "the chunk is in use");
        assert!(took < Duration::from_millis(1500 + 1500), "the purge took {took:?}");
    });

    assert_eq!(
        column::<String>(&mut replay, "FETCH ALL FROM replay").len(),
        49,
        "the replay was not disturbed"
    );
    replay.commit().expect("commit");
    assert_eq!(purge(&mut purger), 1, "it catches up");
    assert_eq!(one::<i64>(&mut watch, "SELECT count(*) FROM tailstream.events"), 50);
    assert_eq!(one::<i64>(&mut watch, REPLAY), 50);
}

#[test]
fn many_chunks_in_use_hold_a_reader_up_no_longer_than_one() {
    const CHUNKS: i32 = 12;
    let database = database("many_chunks");
    let (mut purger, mut holder, mut reader) = (database.connect(), database.connect(), database.connect());
    store_old(&mut purger, CHUNKS);
    // The oldest chunk is free and goes first; all others are in use.
    let locks: Vec<String> = column(
        &mut holder,
        "SELECT format('LOCK TABLE %s IN ACCESS SHARE MODE', chunk) FROM tailstream.expired_chunks() ORDER BY range_end OFFSET 1",
    );
    assert_eq!(locks.len() as i32, CHUNKS - 1);
    let mut held = holder.transaction().expect("a transaction");
    held.batch_execute(&locks.join(";")).expect("locks");
    purger.batch_execute("SET tailstream.purge_lock_timeout = '500ms'").expect("patience");
    thread::scope(|scope| {
        let purging = scope.spawn(|| {
            let began = Instant::now();
            (purge(&mut purger), began.elapsed())
        });
        let mut watch = database.connect();
        eventually("the purge to wait", Duration::from_secs(20), || somebody_waits(&mut watch));
        let began = Instant::now();
        assert_eq!(one::<i64>(&mut reader, REPLAY), i64::from(CHUNKS) * 50);
        let read = began.elapsed();
        assert!(read < Duration::from_millis(500 + 1000), "the reader waited {read:?}");
        let (dropped, took) = purging.join().expect("the purge");
        assert_eq!(dropped, 1);
        assert!(took < Duration::from_millis(2 * 500 + 1000), "the purge took {took:?}");
    });
    held.commit().expect("commit");
    assert_eq!(purge(&mut purger), i64::from(CHUNKS) - 1);
}

#[test]
fn a_prepared_replay_outlives_the_chunks_it_was_planned_with() {
    let database = database("prepared");
    let (mut client, mut purger) = (database.connect(), database.connect());
    store_old(&mut purger, 3);
    client.batch_execute("SET plan_cache_mode = force_generic_plan").expect("generic plans");
    let replay = client
        .prepare("SELECT path FROM ts_replay($1, now() - interval '2 days', now()) ORDER BY created_at, id")
        .expect("a statement");
    for _ in 0..3 {
        assert_eq!(client.query(&replay, &[&"gold"]).expect("a replay").len(), 150);
    }
    assert_eq!(purge(&mut purger), 3);
    assert_eq!(client.query(&replay, &[&"gold"]).expect("a replay after the purge").len(), 150);
}

#[test]
fn parallel_plans_read_the_same() {
    let database = database("parallel");
    let mut client = database.connect();
    store_old(&mut client, 3);
    client
        .batch_execute(
            "ANALYZE tailstream.events; SET debug_parallel_query = on; SET parallel_setup_cost = 0;
             SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET min_parallel_index_scan_size = 0",
        )
        .expect("settings");
    let plan: Vec<String> = column(&mut client, &format!("EXPLAIN {REPLAY}"));
    assert!(plan.iter().any(|line| line.contains("Gather")), "{plan:#?}");
    assert_eq!(one::<i64>(&mut client, REPLAY), 150);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM tailstream.log_events"), 150);
}

#[test]
fn a_purge_finds_its_chunks_whatever_the_session_has_set() {
    let database = database("settings");
    for (round, settings) in [
        "SET quote_all_identifiers = on",
        "SET standard_conforming_strings = off",
        "SET datestyle = 'German, DMY'; SET timezone = 'America/St_Johns'; SET intervalstyle = 'sql_standard'",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = database.connect();
        store_old(&mut client, 2);
        client.batch_execute(settings).expect(settings);
        let nowhere = "SELECT count(*) FROM tailstream.chunks('tailstream.events', 'created_at')
                       WHERE tier IS NULL OR range_start IS NULL OR range_end IS NULL";
        assert_eq!(one::<i64>(&mut client, nowhere), 0, "{settings}");
        assert_eq!(purge(&mut client), 2, "{settings}");
        let left = "SELECT count(*) FROM tailstream.events WHERE org_id = 'tin'";
        assert_eq!(one::<i64>(&mut client, left), 0, "{settings}, round {round}");
    }
}

#[test]
fn what_cannot_be_rescued_keeps_nothing_else_from_it() {
    let database = database("unrescued");
    let mut client = database.connect();
    client
        .batch_execute(
            "INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
             SELECT 1, now() - hours * interval '1 hour', org, 1, '/' FROM (VALUES ('stuck', 9), ('gold', 6)) o(org, hours);
             SELECT ts_set_org_tier('stuck', 'premium'), ts_set_org_tier('gold', 'premium');
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''refused''; END';
             CREATE TRIGGER refuse BEFORE INSERT ON tailstream.events FOR EACH ROW WHEN (NEW.org_id = 'stuck')
                 EXECUTE FUNCTION refuse()",
        )
        .expect("events to rescue");
    // One call makes the chunk, the next one goes on.
    let twice = |client: &mut Client| [(); 2].map(|()| purge(client));
    twice(&mut client);
    let tiers = "SELECT org_id || ' ' || tier FROM tailstream.events ORDER BY 1";
    assert_eq!(column::<String>(&mut client, tiers), ["gold 2", "stuck 1"]);
    client.batch_execute("DROP TRIGGER refuse ON tailstream.events").expect("no trigger");
    twice(&mut client);
    assert_eq!(column::<String>(&mut client, tiers), ["gold 2", "stuck 2"]);
}

#[test]
fn a_rescue_that_needs_a_new_chunk_does_not_keep_others_waiting() {
    let database = database("rescue_order");
    let mut client = database.connect();
    let upgrade = |client: &mut Client, org: &str, hours: i32| {
        let sql = format!(
            "INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
             VALUES ({hours}, now() - {hours} * interval '1 hour', '{org}', 1, '/');
             SELECT ts_set_org_tier('{org}', 'premium')"
        );
        client.batch_execute(&sql).expect("an upgraded org");
    };
    // The first call makes the chunk; then older events arrive, for which there is none, before each further call.
    upgrade(&mut client, "org-5", 5);
    assert_eq!(purge(&mut client), 0);
    for hours in 6..9 {
        upgrade(&mut client, &format!("org-{hours}"), hours);
    }
    // Each further call rescues one chunk, and creates the one that the next call needs.
    let rescued = "SELECT org_id FROM tailstream.events WHERE tier = 2 ORDER BY 1";
    for expected in [&["org-5"][..], &["org-5", "org-8"], &["org-5", "org-7", "org-8"]] {
        assert_eq!(purge(&mut client), 1);
        assert_eq!(column::<String>(&mut client, rescued), expected);
    }
}

#[test]
fn chunks_of_a_dropped_tier_go_and_those_of_an_unknown_one_stay() {
    let database = database("dropped_tiers");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT ts_create_tier('dropped', '1 hour'), ts_create_tier('deleted', '1 hour');
             SELECT ts_set_org_tier('acme', 'dropped'), ts_set_org_tier('acme', 'standard');
             INSERT INTO tailstream.events (id, created_at, org_id, tier)
             SELECT t.id * 10 + n, now() - n * interval '5 days', 'acme', t.id
             FROM tailstream.tiers t, generate_series(1, 2) n WHERE t.name IN ('dropped', 'deleted');
             SELECT ts_drop_tier('dropped');
             DELETE FROM tailstream.tiers WHERE name = 'deleted';
             INSERT INTO tailstream.batches (batch_id, received_at, xid, org_id, tier, event_count)
             VALUES (0, now() - interval '40 days', '3', 'acme', 4, 1)",
        )
        .expect("two tiers that are gone");
    let left = "SELECT count(*) || ' of ' || tier FROM tailstream.events GROUP BY tier ORDER BY tier";
    assert_eq!(column::<String>(&mut client, left), ["2 of 3", "2 of 4"]);
    // A dropped tier's events are kept as long as those of the longest one, 7 days.
    assert_eq!(purge(&mut client), 1);
    assert_eq!(column::<String>(&mut client, left), ["1 of 3", "2 of 4"]);
    let health = "SELECT status || ' ' || detail FROM ts_health() WHERE component = 'tiers'";
    let sick: String = one(&mut client, health);
    assert!(sick.starts_with("error") && sick.contains("tier 4 (2 chunks"), "{sick}");
    // Ids that are begun with again, as where the sequence was lost, are not given to another tier.
    client
        .batch_execute(
            "ALTER TABLE tailstream.tiers ALTER COLUMN id RESTART WITH 1;
             SELECT ts_create_tier('next', '1 hour'), ts_create_tier('dropped', '10 days')",
        )
        .expect("new tiers");
    let ids: Vec<i16> = column(&mut client, "SELECT id FROM tailstream.tiers ORDER BY id");
    assert_eq!(ids, [1, 2, 5, 6]);
    assert_eq!(purge(&mut client), 0);
    assert_eq!(column::<String>(&mut client, left), ["1 of 3", "2 of 4"]);
    let ledger = "SELECT count(*) FROM tailstream.batches";
    assert_eq!(one::<i64>(&mut client, ledger), 1, "what is known of kept events is kept");
    client
        .batch_execute("INSERT INTO tailstream.dropped_tiers (id, name) VALUES (4, 'deleted'); SELECT ts_drop_tier('dropped')")
        .expect("what ts_health() asks for");
    assert_eq!(purge(&mut client), 1);
    assert!(one::<String>(&mut client, health).starts_with("ok"));
    assert_eq!(one::<i64>(&mut client, ledger), 0);
    // A restore that brought orgs and not their tiers.
    client
        .batch_execute(
            "ALTER TABLE tailstream.orgs DROP CONSTRAINT orgs_tier_fkey; DELETE FROM tailstream.tiers WHERE name = 'standard'",
        )
        .expect("a tier less");
    for (org, message) in
        [("acme", "the tier of org \"acme\" does not exist"), ("new", "tier \"standard\" does not exist")]
    {
        let error = refused(org, ingest(&mut client, org, "{}", None), &["55000"]);
        assert_eq!((error.message(), error.hint().is_some()), (message, true));
    }
    let sick = "SELECT component || ' ' || status FROM ts_health() WHERE component IN ('tiers', 'orgs')";
    assert_eq!(column::<String>(&mut client, sick), ["tiers error", "orgs error"]);
}
