//! Sessions with `session_replication_role = replica`, in which ordinary triggers do not fire.

use tailstream_e2e::database::{column, ingest, one};
use tailstream_e2e::refused;

use crate::{check_ledger, database, stored};

#[test]
fn what_a_replicating_session_inserts_is_stored() {
    let database = database("replicating");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE VIEW over AS SELECT * FROM tailstream.log_events;
             CREATE FUNCTION inserts() RETURNS bigint LANGUAGE plpgsql AS $$
             DECLARE made bigint;
             BEGIN
                 INSERT INTO tailstream.log_events (org_id, path) VALUES ('acme', '/r/function') RETURNING id INTO made;
                 RETURN made;
             END $$;
             PREPARE early AS INSERT INTO tailstream.log_events (org_id, path) VALUES ('acme', '/r/prepared') RETURNING id",
        )
        .expect("the scene");
    // Plans that were made before.
    client.batch_execute("EXECUTE early; SELECT inserts()").expect("events");
    client.batch_execute("SET session_replication_role = replica").expect("the role");
    for (statement, rows) in [
        ("INSERT INTO tailstream.log_events (org_id, path) VALUES ('acme', '/r/one') RETURNING id", 1),
        (
            "INSERT INTO tailstream.log_events (org_id, path) VALUES ('acme', '/r/a'), ('acme', '/r/b') RETURNING id",
            2,
        ),
        (
            "INSERT INTO tailstream.log_events (org_id, path) SELECT 'acme', '/r/' || n FROM generate_series(1, 5) n RETURNING id",
            5,
        ),
        (
            "WITH x AS (INSERT INTO tailstream.log_events (org_id, path) VALUES ('acme', '/r/with') RETURNING id) SELECT id FROM x",
            1,
        ),
        ("INSERT INTO over (org_id, path) VALUES ('acme', '/r/over') RETURNING id", 1),
        ("EXECUTE early", 1),
        ("SELECT inserts()", 1),
        ("SELECT set_config('session_replication_role', 'origin', false)", 0),
        (
            "INSERT INTO tailstream.log_events (org_id, path)
          SELECT 'acme', '/r/' || set_config('session_replication_role', 'replica', false) RETURNING id",
            1,
        ),
    ] {
        let before = stored(&mut client, "/r/%");
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        assert_eq!(stored(&mut client, "/r/%") - before, rows, "{statement}");
    }
    assert_eq!(one::<String>(&mut client, "SHOW session_replication_role"), "replica");
    let copy = client.batch_execute(
        "COPY tailstream.log_events (org_id, path) FROM PROGRAM 'printf \"acme\\t/r/copy\\n\"'",
    );
    let error = refused("COPY", copy, &["55000"]);
    assert!(error.hint().is_some_and(|hint| hint.contains("session_replication_role")), "{error:?}");
    client.batch_execute("SET session_replication_role = origin").expect("the role");
    let copy = "COPY tailstream.log_events (org_id, path) FROM PROGRAM 'printf \"acme\\t/r/copy\\n\"'";
    client.batch_execute(copy).expect("COPY");
    assert_eq!(stored(&mut client, "/r/copy"), 1);
    check_ledger(&mut client);
}

#[test]
fn what_a_replicating_session_changes_of_tiers_is_known_to_all() {
    let database = database("downgrading");
    let (mut client, mut reader) = (database.connect(), database.connect());
    client.batch_execute("SELECT ts_set_org_tier('acme', 'premium')").expect("a tier");
    ingest(&mut client, "acme", "[{}]", None).expect("an event");
    client
        .batch_execute("SELECT ts_ingest('acme', json_build_object('ts', now() - interval '2 days'))")
        .expect("an old event");
    let mut shown = || one::<i64>(&mut reader, "SELECT count(*) FROM tailstream.log_events");
    assert_eq!(shown(), 2);
    client.batch_execute("SET session_replication_role = replica").expect("the role");
    client.batch_execute("SELECT ts_set_org_tier('acme', 'standard')").expect("a downgrade");
    assert_eq!(shown(), 1, "the org is on another tier");
    client.batch_execute("SELECT ts_set_org_tier('acme', 'premium')").expect("an upgrade");
    assert_eq!(shown(), 2);
    client.batch_execute("SELECT ts_alter_tier('premium', '1 day')").expect("another retention");
    assert_eq!(shown(), 1, "the tier has another retention");
}

#[test]
fn triggers_of_tables_that_are_found_fire_always() {
    let database = database("found");
    let mut client = database.connect();
    let enabled = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'tailstream_invalidate_cache'";
    assert_eq!(column::<String>(&mut client, enabled), ["A", "A"]);
    client.batch_execute("DROP EXTENSION tailstream; CREATE EXTENSION tailstream").expect("the extension");
    assert_eq!(column::<String>(&mut client, enabled), ["A", "A"]);
    client
        .batch_execute(
            "ALTER TABLE tailstream.orgs ENABLE TRIGGER tailstream_invalidate_cache;
             DROP TRIGGER tailstream_invalidate_cache ON tailstream.tiers;
             SELECT tailstream.attach_storage()",
        )
        .expect("storage attached");
    assert_eq!(column::<String>(&mut client, enabled), ["A", "A"]);
}
