//! The extension goes and comes back, a dump moves to another server: users' data stays.

use std::process::Command;
use std::sync::{Arc, Mutex};

use postgres::{Client, NoTls};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::{Cluster, postgres_install};
use tailstream_e2e::database::{column, config, ingest, one};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server, refused};

/// What must be the same before and after.
const CONTENTS: [&str; 6] = [
    "SELECT e::text FROM tailstream.events e ORDER BY id",
    "SELECT (to_jsonb(b) - 'xid')::text FROM tailstream.batches b ORDER BY batch_id",
    "SELECT r::text FROM tailstream.rejected_events r ORDER BY batch_id, position",
    "SELECT o::text FROM tailstream.orgs o ORDER BY org_id",
    "SELECT t::text FROM tailstream.tiers t ORDER BY id",
    "SELECT ts_event(e)::text FROM tailstream.log_events e ORDER BY id",
];

fn contents(client: &mut Client) -> Vec<Vec<String>> {
    CONTENTS.iter().map(|sql| column(client, sql)).collect()
}

/// Orgs on three tiers with events in many chunks, a quarantined event and one that is old.
fn fill(client: &mut Client) {
    client
        .batch_execute(
            r#"SELECT ts_create_tier('month', '30 days'), ts_alter_tier('premium', '8 days');
               SELECT ts_set_org_tier('gold', 'premium'), ts_set_org_tier('slow', 'month');
               SELECT ts_ingest(org, (SELECT json_agg(json_build_object('path', '/' || n, 'rt', 0.1234567, 'ip', '::1',
                          'created_at', now() - n * interval '7 minutes', 'note', E'ü\n' || n)) FROM generate_series(0, 20) n),
                      'key-' || org) FROM unnest('{gold,slow,tin,o''brien}'::text[]) org;
               SELECT ts_ingest('tin', '[{"path":"/good"},{"status":"bad"}]', NULL, 'quarantine');
               INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
                   VALUES (1, now() - interval '6 hours', 'tin', 1, '/expired')"#,
        )
        .expect("data");
}

/// Everything works on what is there.
fn check_working(client: &mut Client, last_batch: i64) {
    let done = ingest(client, "tin", r#"[{"path":"/after"},{"path":"/after"}]"#, None).expect("ingest");
    assert!(done.batch_id > last_batch, "batch ids were given again: {} after {last_batch}", done.batch_id);
    refused("other events", ingest(client, "gold", "{}", Some("key-gold")), &["23000"]);
    client
        .batch_execute("UPDATE tailstream.batches SET payload_hash = NULL WHERE idempotency_key = 'key-gold'")
        .expect("a ledger of before there were hashes");
    let again = ingest(client, "gold", "{}", Some("key-gold")).expect("a repeated batch");
    assert_eq!((again.duplicate, again.accepted), (true, 21), "idempotency keys are remembered");
    let replayed = "SELECT count(*) FROM ts_replay('gold', now() - interval '7 days', now())";
    assert_eq!(one::<i64>(client, replayed), 21);
    let tier = "SELECT tier || ' ' || retention FROM ts_org('gold')";
    assert_eq!(one::<String>(client, tier), "premium 8 days");
    let purged = "SELECT chunks_dropped FROM ts_apply_retention() WHERE tier = 'standard'";
    assert_eq!(one::<i32>(client, purged), 1);
    let (expired, fresh) = ("path = '/expired'", "path = '/after'");
    for (condition, count) in [(expired, 0), (fresh, 2)] {
        let sql = format!("SELECT count(*) FROM tailstream.events WHERE {condition}");
        assert_eq!(one::<i64>(client, &sql), count, "{condition}");
    }
    client
        .execute("INSERT INTO tailstream.log_events (org_id, path) VALUES ('tin', '/view')", &[])
        .expect("an insert into the view");
    client.execute("SELECT ts_set_org_tier('tin', 'month')", &[]).expect("a change of tier");
    assert_eq!(one::<String>(client, "SELECT tier FROM ts_org('tin')"), "month");
    let sick: Vec<String> =
        column(client, "SELECT component || ': ' || detail FROM ts_health() WHERE status = 'error'");
    assert!(sick.is_empty(), "{sick:?}");
    assert!(one::<i64>(client, "SELECT events FROM ts_erase_org('slow')") >= 21);
}

#[test]
fn dropping_the_extension_keeps_the_data_and_creating_it_picks_them_up() {
    let database = Database::new(&Server::shared("lifecycle"), "comes_back");
    let mut client = database.connect();
    let mut witness = database.connect();
    fill(&mut client);
    ingest(&mut witness, "tin", "{}", None).expect("a session that is there all along");
    let before = contents(&mut client);
    let last_batch = one(&mut client, "SELECT max(batch_id) FROM tailstream.batches");
    client.batch_execute("DROP EXTENSION tailstream").expect("DROP EXTENSION");
    let tables = "SELECT count(*) FROM tailstream.events";
    assert_eq!(one::<i64>(&mut client, tables), before[0].len() as i64);
    refused("ingest without the extension", ingest(&mut client, "tin", "{}", None), &["42883"]);
    for role in ["tailstream_writer", "tailstream_reader", "tailstream_admin"] {
        let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'");
        assert_eq!(one::<i64>(&mut client, &sql), 1, "{role}");
    }
    client.batch_execute("CREATE EXTENSION tailstream").expect("CREATE EXTENSION");
    assert_eq!(contents(&mut client), before);
    let dimensions =
        "SELECT count(*) FROM timescaledb_information.dimensions WHERE hypertable_name = 'events'";
    assert_eq!(one::<i64>(&mut client, dimensions), 2, "nothing was done twice");
    ingest(&mut witness, "tin", "{}", None).expect("the session that was there all along");
    check_working(&mut client, last_batch);
    // And once more within one transaction, and undone.
    client
        .batch_execute("BEGIN; DROP EXTENSION tailstream; CREATE EXTENSION tailstream; COMMIT; BEGIN; DROP EXTENSION tailstream; ROLLBACK")
        .expect("both in one transaction");
    ingest(&mut client, "tin", "{}", None).expect("ingest");
}

#[test]
fn without_its_tables_the_extension_says_so() {
    let database = Database::new(&Server::shared("lifecycle"), "no_tables");
    let mut client = database.connect();
    ingest(&mut client, "tin", "[{},{}]", None).expect("ingest");
    client.batch_execute("DROP TABLE tailstream.batches").expect("DROP TABLE");
    for _ in 0..2 {
        refused("ingest", ingest(&mut client, "tin", "[{},{}]", None), &["55000", "42P01"]);
    }
    client.batch_execute("SELECT tailstream.attach_storage()").expect("attach_storage");
    ingest(&mut client, "tin", "[{},{}]", None).expect("ingest into new tables");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM tailstream.batches"), 1);
}

#[test]
fn a_schema_of_somebody_else_is_not_taken_over() {
    let database = Database::empty(&Server::shared("lifecycle"), "squatted");
    let squatter = database.login_role("squatter", &[]);
    let mut client = database.connect();
    let grab = format!("CREATE EXTENSION timescaledb; CREATE SCHEMA tailstream AUTHORIZATION {squatter}");
    client.batch_execute(&grab).expect("a schema");
    refused("CREATE EXTENSION", client.batch_execute("CREATE EXTENSION tailstream"), &["42501"]);
    let table = format!(
        "ALTER SCHEMA tailstream OWNER TO postgres; CREATE TABLE tailstream.tiers (id int);
                         ALTER TABLE tailstream.tiers OWNER TO {squatter}"
    );
    client.batch_execute(&table).expect("a table");
    refused("CREATE EXTENSION", client.batch_execute("CREATE EXTENSION tailstream"), &["42501"]);
    client
        .batch_execute("DROP SCHEMA tailstream CASCADE; CREATE EXTENSION tailstream")
        .expect("CREATE EXTENSION");
    client.batch_execute("DROP EXTENSION tailstream; DROP SCHEMA tailstream CASCADE").expect("the end");
}

#[test]
fn a_dump_moves_to_a_new_server_with_everything() {
    let database = Database::new(&Server::shared("lifecycle"), "dumped");
    let mut client = database.connect();
    fill(&mut client);
    let before = contents(&mut client);
    let last_batch = one(&mut client, "SELECT max(batch_id) FROM tailstream.batches");
    let file = database.cluster.dir().join("dump");
    let file = file.to_str().expect("a path");
    run(&database.cluster, "pg_dump", &["-Fc", "-f", file, "dumped"]);

    let target = Server::create("restored", |builder| builder.preload(&PRELOAD));
    target.create_database("restored").expect("a database");
    let mut client = config(&target, "restored", SUPERUSER).connect(NoTls).expect("a connection");
    client
        .batch_execute("CREATE EXTENSION timescaledb; SELECT timescaledb_pre_restore()")
        .expect("before the restore");
    run(&target, "pg_restore", &["--exit-on-error", "-d", "restored", file]);
    // What comes now comes in sessions that begin after the restore, as it would by hand.
    let mut client = config(&target, "restored", SUPERUSER).connect(NoTls).expect("a connection");
    client.batch_execute("SELECT timescaledb_post_restore()").expect("after the restore");
    let mut client = config(&target, "restored", SUPERUSER).connect(NoTls).expect("a connection");
    client.batch_execute("SELECT tailstream.attach_storage()").expect("attach_storage");
    assert_eq!(contents(&mut client), before);
    check_working(&mut client, last_batch);
    for role in ["tailstream_writer", "tailstream_reader"] {
        client.batch_execute(&format!("SET ROLE {role}")).expect("the roles came with the extension");
        let refusal = client.execute("SELECT * FROM tailstream.events", &[]);
        refused(role, refusal, &["42501"]);
        client.batch_execute("RESET ROLE").expect("RESET ROLE");
    }
    client.batch_execute("SET ROLE tailstream_writer").expect("SET ROLE");
    ingest(&mut client, "tin", "{}", None).expect("a writer writes");
    client.batch_execute("SET ROLE tailstream_reader").expect("SET ROLE");
    let sql = "SELECT count(*) FROM ts_replay('gold', now() - interval '7 days', now())";
    assert_eq!(one::<i64>(&mut client, sql), 21);
}

/// As people do it who have not read of pre_restore: psql goes on after every error, and tiers and orgs are lost.
#[test]
fn a_plain_dump_without_the_hooks_loses_no_event_to_the_purge() {
    let database = Database::new(&Server::shared("lifecycle"), "plain");
    let mut client = database.connect();
    fill(&mut client);
    client
        .batch_execute(
            "INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
             SELECT n, now() - n * interval '1 day', 'slow', 3, '/old' FROM generate_series(9, 29) n;
             INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
             VALUES (100, now() - interval '7 days 12 hours', 'gold', 2, '/longer')",
        )
        .expect("events of a month, and of a tier that keeps more than it began with");
    let file = database.cluster.dir().join("plain.sql");
    let file = file.to_str().expect("a path");
    run(&database.cluster, "pg_dump", &["-f", file, "plain"]);
    let target = Server::create("plainly", |builder| builder.preload(&PRELOAD));
    target.create_database("plain").expect("a database");
    run(&target, "psql", &["-q", "-f", file, "plain"]);

    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&warnings);
    let mut config = config(&target, "plain", SUPERUSER);
    config.notice_callback(move |notice| {
        let hint = notice.hint().unwrap_or_default();
        heard.lock().expect("warnings").push(format!("{}. {hint}", notice.message()));
    });
    let mut client = config.connect(NoTls).expect("a connection");
    client.batch_execute("SELECT tailstream.attach_storage()").expect("attach_storage");
    let heard: Vec<String> = std::mem::take(&mut *warnings.lock().expect("warnings"));
    assert!(heard.iter().any(|warning| warning.contains("not purged: tier 3 (")), "{heard:?}");
    assert!(
        heard.iter().any(|warning| warning.contains("not registered: gold, o'brien, slow, tin.")),
        "{heard:?}"
    );
    let sick = "SELECT component || ': ' || status FROM ts_health() WHERE component IN ('tiers', 'orgs')";
    assert_eq!(column::<String>(&mut client, sick), ["tiers: error", "tiers: error", "orgs: warning"]);
    assert!(
        heard.iter().any(|warning| warning.contains("premium (7 days, and 8 days was set)")),
        "{heard:?}"
    );
    let of_month = "SELECT count(*) FROM tailstream.events WHERE tier IN (2, 3)";
    let kept: i64 = one(&mut client, of_month);
    for function in ["ts_retention_preview", "ts_apply_retention"] {
        let unknown = format!("SELECT chunks_dropped FROM {function}() WHERE tier = '(unknown tier 3)'");
        assert_eq!(one::<i32>(&mut client, &unknown), 0, "{function}");
    }
    assert_eq!(one::<i64>(&mut client, of_month), kept, "the purge took what it did not know");
    let heard: Vec<String> = std::mem::take(&mut *warnings.lock().expect("warnings"));
    assert!(heard.iter().any(|warning| warning.contains("tier 3")), "{heard:?}");

    client.batch_execute("SELECT ts_create_tier('other', '1 hour')").expect("a new tier");
    assert_ne!(one::<i16>(&mut client, "SELECT id FROM tailstream.tiers WHERE name = 'other'"), 3);
    // What the warnings ask for.
    client
        .batch_execute(
            "INSERT INTO tailstream.tiers (id, name, retention) VALUES (3, 'month', '30 days');
             SELECT ts_alter_tier('premium', '8 days');
             SELECT ts_set_org_tier(org, 'month') FROM unnest('{gold,slow,tin,o''brien}'::text[]) org",
        )
        .expect("repairs");
    assert_eq!(column::<String>(&mut client, sick), ["tiers: ok", "orgs: ok"]);
    let replayed = "SELECT count(*) FROM ts_replay('slow', now() - interval '30 days', now())";
    assert_eq!(one::<i64>(&mut client, replayed), 42);
}

fn run(cluster: &Cluster, program: &str, arguments: &[&str]) {
    let output = Command::new(postgres_install::program(program))
        .args(cluster.psql_args())
        .args(arguments)
        .output()
        .expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
