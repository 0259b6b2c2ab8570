//! What readers see of old events without any purge, and what the purge takes and keeps.
//! No test waits for time to pass: old events are put into the table itself.

use postgres::{Client, SimpleQueryMessage};
use tailstream_e2e::database::{column, one};
use tailstream_e2e::{Database, Server, refused};

const STANDARD: i16 = 1;
const PREMIUM: i16 = 2;

fn database(name: &str) -> Database {
    Database::new(&Server::shared("retention"), name)
}

/// Stores one event, whose time is an SQL expression, as if it had been ingested then.
fn store(client: &mut Client, org: &str, tier: i16, path: &str, time: &str) {
    let sql = format!(
        "INSERT INTO tailstream.events (id, created_at, org_id, tier, method, path, status, metadata, ip_address)
         VALUES (1, {time}, '{org}', {tier}, 'GET', '{path}', 200, '{{\"a\": [1.50]}}', '10.0.0.1/8')"
    );
    client.execute(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn paths(client: &mut Client, org: &str, since: &str) -> Vec<String> {
    column(
        client,
        &format!(
            "SELECT path FROM ts_replay('{org}', {since}, now() + interval '1 minute') ORDER BY created_at, path"
        ),
    )
}

fn purge(client: &mut Client) -> (i64, i64) {
    let row = client
        .query_one("SELECT sum(chunks_dropped), sum(events_rescued)::bigint FROM ts_apply_retention()", &[])
        .expect("the purge");
    (row.get(0), row.get(1))
}

/// All rows of statements that PostgreSQL gets in one message: they share one statement_timestamp(), so
/// that times meet a floor to the microsecond.
fn at_one_time(client: &mut Client, statements: &str) -> Vec<String> {
    let messages = client.simple_query(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    let first = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.iter().filter_map(first).collect()
}

const AROUND_THE_FLOOR: &str = "INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
    SELECT n, statement_timestamp() - interval '3 hours' + n * interval '1 microsecond', 'edge', 1, n::text
    FROM generate_series(-2, 2) n;";

#[test]
fn readers_see_nothing_older_than_the_floor_to_the_microsecond() {
    let database = database("exact");
    let reader = database.login_role("reader", &["tailstream_reader"]);
    let mut client = database.connect();
    let from_floor = "ts_replay('edge', statement_timestamp() - interval '3 hours', statement_timestamp())";
    let from_grace =
        "ts_replay('edge', statement_timestamp() - interval '3 hours 1 minute', statement_timestamp())";
    let own = "SET LOCAL tailstream.org = 'edge'";
    for (prepare, source) in [
        ("", from_floor),
        ("", from_grace),
        ("", "tailstream.log_events"),
        (own, from_grace),
        (own, "tailstream.log_events"),
        (own, "tailstream.own_log_events"),
    ] {
        let seen = at_one_time(
            &mut client,
            &format!(
                "BEGIN; {AROUND_THE_FLOOR} {prepare}; SET LOCAL ROLE {reader};
                 SELECT path FROM {source} ORDER BY created_at; ROLLBACK"
            ),
        );
        assert_eq!(seen, ["0", "1", "2"], "{prepare} {source}");
    }
    let ends = at_one_time(
        &mut client,
        &format!(
            "BEGIN; {AROUND_THE_FLOOR}
             SELECT path FROM ts_replay('edge', statement_timestamp() - interval '3 hours',
                 statement_timestamp() - interval '3 hours' + interval '2 microseconds') ORDER BY 1; ROLLBACK"
        ),
    );
    assert_eq!(ends, ["0", "1"], "an end is not part of its range");
    let window = at_one_time(
        &mut client,
        "SELECT earliest = statement_timestamp() - interval '3 hours' AND retention = interval '3 hours'
             AND latest = statement_timestamp() FROM ts_replay_window('edge')",
    );
    assert_eq!(window, ["t"]);
}

#[test]
fn a_replay_may_start_a_minute_before_the_floor_and_no_microsecond_more() {
    let database = database("grace");
    let mut client = database.connect();
    let too_early = client.simple_query(
        "SELECT * FROM ts_replay('a', statement_timestamp() - interval '3 hours 1 minute 0.000001 seconds', now())",
    );
    let error = refused("a replay from before the grace", too_early, &["22008"]);
    let hint = error.hint().expect("a hint");
    let earliest =
        hint.strip_prefix("The earliest permitted start is ").and_then(|time| time.strip_suffix('.'));
    let earliest = earliest.unwrap_or_else(|| panic!("{hint}"));
    let sql = format!("SELECT count(*) FROM ts_replay('a', '{earliest}', now())");
    assert_eq!(one::<i64>(&mut client, &sql), 0, "what the hint permits is permitted");
}

#[test]
fn ingest_counts_what_is_older_than_the_floor() {
    let database = database("expired");
    let mut client = database.connect();
    for lane in ["executor", "direct"] {
        let outcome = at_one_time(
            &mut client,
            &format!(
                "SET tailstream.ingest_lane = {lane};
                 SELECT t::text FROM ts_ingest('{lane}', (SELECT json_agg(json_build_object('path', n::text, 'created_at',
                     statement_timestamp() - interval '3 hours' + n * interval '1 microsecond'))
                     FROM generate_series(-3, 2) n)) t;
                 SELECT string_agg(path, ',' ORDER BY created_at) FROM tailstream.events WHERE org_id = '{lane}';
                 SELECT accepted || ' ' || expired || ' ' || event_count FROM tailstream.batches WHERE org_id = '{lane}'"
            ),
        );
        let (_, counts) = outcome[0].split_once(',').expect("a composite");
        assert_eq!((counts, &*outcome[1], &*outcome[2]), ("3,0,3,f)", "0,1,2", "3 3 3"), "{lane}");
    }
    let all_expired = at_one_time(
        &mut client,
        r#"SELECT accepted || ' ' || expired FROM ts_ingest('old', '[{"ts":0},{"ts":1.5}]')"#,
    );
    assert_eq!(all_expired, ["0 2"]);
}

#[test]
fn upgraded_orgs_rows_are_rescued_at_the_chunks_very_ends() {
    let database = database("upgrade");
    let mut client = database.connect();
    client
        .batch_execute("ALTER TABLE tailstream.events ADD COLUMN note text DEFAULT 'n'")
        .expect("a user's column");
    let hour = "date_trunc('hour', now()) - interval '5 hours'";
    for org in ["stays", "up"] {
        store(&mut client, org, STANDARD, "first", hour);
        store(&mut client, org, STANDARD, "middle", &format!("{hour} + interval '17 minutes'"));
        store(
            &mut client,
            org,
            STANDARD,
            "last",
            &format!("{hour} + interval '1 hour' - interval '1 microsecond'"),
        );
        store(&mut client, org, STANDARD, "fresh", "now()");
    }
    client.execute("UPDATE tailstream.events SET note = org_id || path", &[]).expect("notes");
    assert_eq!(paths(&mut client, "up", "now() - interval '3 hours'"), ["fresh"]);
    client.execute("SELECT ts_set_org_tier('up', 'premium')", &[]).expect("upgrade");
    let since = "now() - interval '1 day'";
    assert_eq!(
        paths(&mut client, "up", since),
        ["first", "middle", "last", "fresh"],
        "an upgrade shows at once"
    );
    let rows = "SELECT array_agg((to_jsonb(e) - 'tier')::text ORDER BY created_at)
                FROM tailstream.events e WHERE org_id = 'up'";
    let before: Vec<String> = one(&mut client, rows);
    let preview = client
        .query_one("SELECT sum(chunks_dropped), sum(events_rescued)::bigint FROM ts_retention_preview()", &[])
        .expect("the preview");
    assert_eq!((preview.get(0), preview.get(1)), (1_i64, 3_i64));
    assert_eq!(purge(&mut client), (0, 0), "the first call makes the chunk to copy into");
    assert_eq!(one::<Vec<String>>(&mut client, rows), before);
    assert_eq!(purge(&mut client), (1, 3));
    assert_eq!(one::<Vec<String>>(&mut client, rows), before);
    assert_eq!(paths(&mut client, "up", since), ["first", "middle", "last", "fresh"]);
    let moved = "SELECT array_agg(tier ORDER BY created_at) FROM tailstream.events WHERE org_id = 'up'";
    assert_eq!(one::<Vec<i16>>(&mut client, moved), [PREMIUM, PREMIUM, PREMIUM, STANDARD]);
    let left = "SELECT count(*) FROM tailstream.events WHERE org_id = 'stays'";
    assert_eq!(one::<i64>(&mut client, left), 1);
    assert_eq!(purge(&mut client), (0, 0), "nothing is left to do");
}

#[test]
fn only_what_the_new_tier_still_keeps_is_rescued() {
    let database = database("partly");
    let mut client = database.connect();
    // The new floor lies 20 minutes before the end of the chunk, give or take what the test takes.
    let hour = "date_trunc('hour', now()) - interval '5 hours'";
    client
        .batch_execute(&format!("SELECT ts_create_tier('mid', now() - ({hour}) - interval '40 minutes')"))
        .expect("a tier");
    store(&mut client, "up", STANDARD, "gone", &format!("{hour} + interval '30 minutes'"));
    store(&mut client, "up", STANDARD, "kept", &format!("{hour} + interval '50 minutes'"));
    client.execute("SELECT ts_set_org_tier('up', 'mid')", &[]).expect("upgrade");
    assert_eq!(purge(&mut client), (0, 0), "the first call makes the chunk to copy into");
    assert_eq!(purge(&mut client), (1, 1));
    assert_eq!(column::<String>(&mut client, "SELECT path FROM tailstream.events"), ["kept"]);
}

#[test]
fn nothing_is_deleted_by_an_old_snapshot() {
    let database = database("snapshot");
    let (mut client, mut other) = (database.connect(), database.connect());
    store(&mut client, "up", STANDARD, "old", "now() - interval '5 hours'");
    for statement in ["SELECT * FROM ts_apply_retention()", "SELECT * FROM ts_erase_org('up')"] {
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tailstream.orgs")
            .expect("a snapshot");
        other.execute("SELECT ts_set_org_tier('up', 'premium')", &[]).expect("upgrade");
        let error = client.batch_execute(statement).expect_err(statement);
        assert_eq!(error.code().map(|code| code.code()), Some("25000"), "{statement}: {error}");
        client.batch_execute("ROLLBACK").expect("rollback");
    }
    assert_eq!(paths(&mut client, "up", "now() - interval '6 hours'"), ["old"]);
}

#[test]
fn a_downgrade_hides_at_once_and_frees_with_the_old_tiers_chunks() {
    let database = database("downgrade");
    let (mut client, mut other) = (database.connect(), database.connect());
    client
        .batch_execute("SELECT ts_set_org_tier(o, 'premium') FROM unnest('{down,gold}'::text[]) o")
        .expect("orgs");
    for org in ["down", "gold"] {
        store(&mut client, org, PREMIUM, "ancient", "now() - interval '7 days 2 hours'");
        store(&mut client, org, PREMIUM, "old", "now() - interval '5 hours'");
        store(&mut client, org, PREMIUM, "fresh", "now() - interval '10 minutes'");
    }
    let visible = "SELECT path FROM tailstream.log_events WHERE org_id = 'down' ORDER BY created_at";
    assert_eq!(column::<String>(&mut other, visible), ["old", "fresh"]);
    let mut transaction = client.transaction().expect("a transaction");
    transaction.execute("SELECT ts_set_org_tier('down', 'standard')", &[]).expect("downgrade");
    assert_eq!(
        column::<String>(&mut transaction, visible),
        ["fresh"],
        "for the session itself before it commits"
    );
    assert_eq!(column::<String>(&mut other, visible), ["old", "fresh"], "not before it commits");
    transaction.commit().expect("commit");
    assert_eq!(column::<String>(&mut other, visible), ["fresh"], "and from then on");
    let early = other.query("SELECT * FROM ts_replay('down', now() - interval '6 hours', now())", &[]);
    refused("a replay beyond the new retention", early, &["22008"]);

    assert_eq!(purge(&mut client), (1, 0), "the chunk that premium keeps no longer either");
    let kept = "SELECT count(*) FROM tailstream.events WHERE org_id = 'down'";
    assert_eq!(one::<i64>(&mut client, kept), 2);
    client.execute("SELECT ts_alter_tier('premium', '4 hours')", &[]).expect("shorter");
    assert_eq!(paths(&mut other, "gold", "now() - interval '4 hours'"), ["fresh"], "shorter hides at once");
    client.execute("SELECT ts_alter_tier('premium', '6 days')", &[]).expect("longer");
    assert_eq!(
        paths(&mut other, "gold", "now() - interval '5 days'"),
        ["old", "fresh"],
        "longer brings back"
    );
    client.execute("SELECT ts_alter_tier('premium', '2 hours')", &[]).expect("shorter");
    assert_eq!(purge(&mut client), (1, 0), "freed when the old tier's retention is over");
    assert_eq!(one::<i64>(&mut client, kept), 1);
}

#[test]
fn ledger_and_quarantine_have_their_own_ends() {
    let database = database("books");
    let mut client = database.connect();
    client
        .batch_execute(
            "INSERT INTO tailstream.batches (batch_id, received_at, xid, org_id, tier, event_count)
             SELECT d, now() - d * interval '1 day', '1', 'a', 1, 0 FROM unnest('{0,6,9}'::int[]) d;
             INSERT INTO tailstream.rejected_events SELECT now() - d * interval '1 day', d, 0, 'a', '22023', 'r', '{}'
             FROM unnest('{0,6,9}'::int[]) d",
        )
        .expect("old rows");
    purge(&mut client);
    for table in ["batches", "rejected_events"] {
        let sql = format!("SELECT array_agg(batch_id ORDER BY batch_id) FROM tailstream.{table}");
        assert_eq!(one::<Vec<i64>>(&mut client, &sql), [0, 6], "{table}");
    }
}
