//! What each role may do is exactly what the documentation says, and nothing more.

use std::collections::BTreeSet;

use postgres::Client;
use tailstream_e2e::database::{column, one};
use tailstream_e2e::{Database, Server, refused};

const WRITER: [&str; 7] = [
    "tailstream.bound_org",
    "tailstream.event_json",
    // Says why a writer cannot read; true for readers alone.
    "tailstream.session_unbound",
    "ts_event",
    "ts_ingest",
    "ts_ingest_ndjson",
    "ts_version",
];
const READER: [&str; 23] = [
    "tailstream.bound_org",
    "tailstream.is_retained",
    "tailstream.permitted_org",
    "tailstream.replay_floor",
    "tailstream.retention_floor",
    "tailstream.session_unbound",
    "tailstream.storage_missing",
    "ts_event",
    "ts_org",
    "ts_replay",
    "ts_replay_window",
    "ts_version",
    "tailstream.cursor_lag",
    "tailstream.page",
    "tailstream.play",
    "ts_cursor_ack",
    "ts_cursor_create",
    "ts_cursor_drop",
    "ts_cursor_fetch",
    "ts_cursor_seek",
    "ts_replay_live",
    "ts_replay_page",
    "ts_replay_schedule",
];
const ADMIN: [&str; 14] = [
    "ts_alter_tier",
    "ts_apply_retention",
    "ts_create_tier",
    "ts_drop_tier",
    "ts_erase_org",
    "ts_health",
    "ts_metrics",
    "ts_mirror_status",
    "ts_mirror_verify",
    "ts_retention_preview",
    "ts_schedule_retention",
    "ts_set_mirror",
    "ts_set_org_tier",
    "ts_unschedule_retention",
];

struct Scene {
    database: Database,
    writer: String,
    reader: String,
    admin: String,
    nobody: String,
}

impl Scene {
    fn new(name: &str) -> Self {
        let database = Database::new(&Server::shared("privileges"), name);
        let [writer, reader, admin] = ["writer", "reader", "admin"]
            .map(|role| database.login_role(role, &[&format!("tailstream_{role}")]));
        let nobody = database.login_role("nobody", &[]);
        let ingest = "SELECT ts_ingest('acme', '[{},{\"status\":\"x\"}]', 'key', 'quarantine')";
        database.connect().batch_execute(ingest).expect("events");
        Self { database, writer, reader, admin, nobody }
    }

    fn all(&self) -> [&String; 4] {
        [&self.writer, &self.reader, &self.admin, &self.nobody]
    }
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn functions_are_granted_to_those_who_need_them_alone() {
    let scene = Scene::new("functions");
    let mut client = scene.database.connect();
    let admin: Vec<&str> = WRITER.iter().chain(&READER).chain(&ADMIN).copied().collect();
    for (role, allowed) in
        [(&scene.writer, &WRITER[..]), (&scene.reader, &READER), (&scene.admin, &admin), (&scene.nobody, &[])]
    {
        let sql = format!(
            "SELECT DISTINCT CASE p.pronamespace WHEN 'tailstream'::regnamespace THEN 'tailstream.' ELSE '' END || p.proname
             FROM pg_proc p
             JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
             JOIN pg_extension e ON e.oid = d.refobjid
             WHERE e.extname = 'tailstream' AND has_function_privilege('{role}', p.oid, 'EXECUTE')"
        );
        let granted: BTreeSet<String> = column(&mut client, &sql).into_iter().collect();
        assert_eq!(granted, names(allowed), "{role}");
    }
}

#[test]
fn nobody_but_the_owner_has_rights_on_tables_chunks_and_sequences() {
    let scene = Scene::new("tables");
    let mut client = scene.database.connect();
    let bookkeeping =
        ["batches", "dropped_tiers", "mirror_rebuilds", "orgs", "positions", "rejected_events", "tiers"]
            .map(|table| format!("tailstream.{table} SELECT"));
    let views =
        |rights: &[&str]| rights.iter().map(|right| format!("tailstream.{right}")).collect::<Vec<_>>();
    let write = views(&["log_events INSERT"]);
    let read = views(&["cursors SELECT", "log_events SELECT", "own_log_events SELECT"]);
    let admin = [&bookkeeping[..], &write, &read].concat();
    for (role, allowed) in
        [(&scene.writer, write), (&scene.reader, read), (&scene.admin, admin), (&scene.nobody, vec![])]
    {
        let sql = format!(
            "SELECT c.oid::regclass || ' ' || privilege FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
                 unnest('{{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}}'::text[]) privilege
             WHERE (n.nspname = 'tailstream' OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'tailstream.events'::regclass)) AND c.relkind IN ('r', 'v')
               AND has_table_privilege('{role}', c.oid, privilege)
             UNION ALL
             SELECT c.oid::regclass || ' ' || privilege FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
                 unnest('{{SELECT,UPDATE,USAGE}}'::text[]) privilege
             WHERE n.nspname = 'tailstream' AND c.relkind = 'S' AND has_sequence_privilege('{role}', c.oid, privilege)"
        );
        let granted: BTreeSet<String> = column(&mut client, &sql).into_iter().collect();
        assert_eq!(granted, allowed.into_iter().collect(), "{role}");
    }
    let chunks = "SELECT count(*) FROM pg_class WHERE relname ~ '^_hyper_'";
    assert!(one::<i64>(&mut client, chunks) >= 3, "there are no chunks to look at");
}

/// `{chunk}` is a chunk of events, `{role}` the role itself.
const FORBIDDEN: &[&str] = &[
    "SELECT * FROM tailstream.events",
    "SELECT count(*) FROM {chunk}",
    "COPY tailstream.events TO STDOUT",
    "INSERT INTO tailstream.events (id, created_at, org_id, tier) VALUES (1, now(), 'acme', 1)",
    "INSERT INTO {chunk} (id, created_at, org_id, tier) VALUES (1, now(), 'acme', 1)",
    "UPDATE tailstream.events SET org_id = 'x'",
    "DELETE FROM tailstream.events",
    "DELETE FROM {chunk}",
    "TRUNCATE tailstream.events",
    "DROP TABLE {chunk}",
    "ALTER TABLE {chunk} ADD COLUMN x int",
    "SELECT _timescaledb_functions.drop_chunk('{chunk}')",
    "SELECT drop_chunks('tailstream.events', older_than => now() + interval '1 day')",
    "SELECT set_chunk_time_interval('tailstream.events', interval '1 day')",
    "UPDATE tailstream.orgs SET tier = 2",
    "INSERT INTO tailstream.tiers (name, retention) VALUES ('x', '1 day')",
    "DELETE FROM tailstream.batches",
    "UPDATE tailstream.rejected_events SET org_id = 'x'",
    "SELECT * FROM tailstream.mirror",
    "SELECT * FROM tailstream.sequencer",
    "DELETE FROM tailstream.positions",
    "INSERT INTO tailstream.mirror_rebuilds (org_id, reason) VALUES ('acme', 'erased')",
    "SELECT tailstream.request_rebuild('acme', 'erased')",
    "SELECT tailstream.adopt_ledger()",
    "SELECT tailstream.count('tailstream_ingest_events_total', 1)",
    "SELECT * FROM tailstream.mirror_progress()",
    "SELECT nextval('tailstream.batch_id_seq')",
    "SELECT setval('tailstream.batch_id_seq', 1)",
    "SELECT last_value FROM tailstream.batch_id_seq",
    "UPDATE tailstream.log_events SET path = 'x'",
    "DELETE FROM tailstream.log_events",
    "SELECT tailstream.purge_chunk('{chunk}', NULL, NULL, '1 second')",
    "SELECT tailstream.attach_storage()",
    "SELECT tailstream.create_views()",
    "SELECT tailstream.create_tables()",
    "SELECT tailstream.lock_org_for_erasure('acme')",
    "SELECT * FROM tailstream.chunks('tailstream.events', 'created_at')",
    "SELECT tailstream.rescue_events('{chunk}', 1::smallint, '1 day')",
    "CREATE TABLE tailstream.mine (a int)",
    "CREATE FUNCTION tailstream.bound_org(int) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
    "CREATE OR REPLACE VIEW tailstream.log_events AS SELECT 1",
    "DROP VIEW tailstream.own_log_events",
    "DROP EXTENSION tailstream",
    "CREATE TRIGGER t AFTER INSERT ON tailstream.events EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "SET tailstream.org = 'acme'",
    "SELECT set_config('tailstream.org', '', false)",
    "SET tailstream.auto_register_orgs = off",
    "SET tailstream.purge_lock_timeout = '1min'",
    "ALTER SYSTEM SET tailstream.mirror_enabled = off",
    "SHOW tailstream.redis_url",
    "SHOW tailstream.redis_password_file",
    "ALTER ROLE {role} SET tailstream.org = 'acme'",
    "ALTER DATABASE {database} SET tailstream.org = 'acme'",
];

const INGESTS: [&str; 4] = [
    "SELECT ts_ingest('acme', '{}')",
    "SELECT ts_ingest_ndjson('acme', '{}')",
    "INSERT INTO tailstream.log_events (org_id) VALUES ('acme')",
    "INSERT INTO tailstream.log_events (org_id) VALUES ('acme') RETURNING path",
];
const REPLAYS: [&str; 6] = [
    "SELECT * FROM ts_replay('acme', now() - interval '1 hour', now())",
    "SELECT ts_replay_window('acme')",
    "SELECT * FROM ts_org('acme')",
    "SELECT * FROM tailstream.log_events",
    "SELECT * FROM tailstream.own_log_events",
    "SELECT tailstream.retention_floor('acme')",
];
const RULES: [&str; 13] = [
    "SELECT * FROM ts_apply_retention()",
    "SELECT * FROM ts_retention_preview()",
    "SELECT ts_create_tier('x', '1 day')",
    "SELECT ts_alter_tier('standard', '1 day')",
    "SELECT ts_set_org_tier('acme', 'premium')",
    "SELECT ts_erase_org('acme')",
    "SELECT * FROM ts_health()",
    "SELECT ts_schedule_retention()",
    "SELECT ts_set_mirror('acme', false)",
    "SELECT * FROM ts_mirror_status()",
    "SELECT * FROM ts_mirror_status('acme')",
    "SELECT * FROM ts_mirror_verify('acme')",
    "SELECT * FROM ts_metrics()",
];

fn forbidden(client: &mut Client, scene: &Scene, role: &str, statement: &str) {
    let chunk = "SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = 'tailstream.events'::regclass LIMIT 1";
    let chunk: String = one(&mut scene.database.connect(), chunk);
    let sql = statement
        .replace("{chunk}", &chunk)
        .replace("{role}", role)
        .replace("{database}", &scene.database.name);
    refused(&format!("{role}: {sql}"), client.batch_execute(&sql), &["42501"]);
}

#[test]
fn what_each_role_must_not_do_is_refused() {
    let scene = Scene::new("forbidden");
    for role in scene.all() {
        let mut client = scene.database.connect_as(role);
        for statement in FORBIDDEN {
            forbidden(&mut client, &scene, role, statement);
        }
    }
    let mut writer = scene.database.connect_as(&scene.writer);
    let mut reader = scene.database.connect_as(&scene.reader);
    let mut nobody = scene.database.connect_as(&scene.nobody);
    for statement in REPLAYS.iter().chain(&RULES) {
        forbidden(&mut writer, &scene, &scene.writer, statement);
    }
    for statement in INGESTS.iter().chain(&RULES) {
        forbidden(&mut reader, &scene, &scene.reader, statement);
    }
    for statement in INGESTS.iter().chain(&REPLAYS).chain(&RULES) {
        forbidden(&mut nobody, &scene, &scene.nobody, statement);
    }
    refused("ts_version()", nobody.batch_execute("SELECT ts_version()"), &["42501"]);
    let mut client = scene.database.connect();
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM tailstream.events"), 1, "nothing was changed");
}

#[test]
fn what_each_role_is_for_works() {
    let scene = Scene::new("allowed");
    let work = |role: &str, statements: &[&str]| {
        let mut client = scene.database.connect_as(role);
        for statement in statements {
            client.batch_execute(statement).unwrap_or_else(|error| panic!("{role}: {statement}: {error:?}"));
        }
    };
    work(&scene.writer, &INGESTS);
    work(&scene.reader, &REPLAYS[..5]);
    work(&scene.reader, &["SELECT ts_event(e) FROM tailstream.log_events e", "SELECT ts_version()"]);
    work(&scene.admin, &INGESTS);
    work(&scene.admin, &REPLAYS);
    work(&scene.admin, &RULES[..5]);
    work(
        &scene.admin,
        &[
            "SELECT * FROM ts_health()",
            "SELECT * FROM ts_metrics()",
            "SELECT ts_set_mirror('acme', false), ts_set_mirror('acme', true, '1 hour')",
            "SELECT * FROM tailstream.rejected_events",
            "SELECT * FROM tailstream.positions",
            "SELECT ts_drop_tier('x')",
        ],
    );
    work(&scene.admin, &["SELECT ts_erase_org('acme')"]);
}

#[test]
fn an_admin_bound_to_an_org_may_look_at_its_own_stream_alone() {
    let scene = Scene::new("bound");
    let bind = format!("ALTER ROLE {} SET tailstream.org = 'acme'", scene.admin);
    scene.database.connect().batch_execute(&bind).expect("a bound role");
    let mut admin = scene.database.connect_as(&scene.admin);
    for (statement, state) in [
        ("SELECT * FROM ts_mirror_status()", "42501"),
        ("SELECT * FROM ts_mirror_status('other')", "42501"),
        ("SELECT * FROM ts_mirror_verify('other')", "42501"),
        ("SELECT * FROM ts_metrics()", "42501"),
        ("SELECT ts_set_mirror('acme', false)", "42501"),
        // Permitted, but there is no mirror here.
        ("SELECT * FROM ts_mirror_status('acme')", "55000"),
        ("SELECT * FROM ts_mirror_verify('acme')", "55000"),
    ] {
        refused(statement, admin.batch_execute(statement), &[state]);
    }
}

#[test]
fn a_search_path_full_of_traps_changes_nothing() {
    let scene = Scene::new("traps");
    let mut client = scene.database.connect();
    client
        .batch_execute(&format!("GRANT CREATE ON DATABASE {} TO {}", scene.database.name, scene.admin))
        .expect("grant");
    let mut admin = scene.database.connect_as(&scene.admin);
    admin
        .batch_execute(
            "CREATE SCHEMA trap; CREATE TABLE trap.caught (who text); GRANT ALL ON SCHEMA trap TO PUBLIC; GRANT ALL ON trap.caught TO PUBLIC;
             CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN ''2000-01-01''; END';
             CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN ''2000-01-01''; END';
             CREATE FUNCTION trap.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN ''SELECT 1''; END';
             CREATE FUNCTION trap.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN true; END';
             CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.eq);
             CREATE FUNCTION trap.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS 'BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN; END';
             CREATE TEMP TABLE pg_class (oid int); CREATE TEMP TABLE orgs (org_id text, tier smallint);
             SET search_path = trap, pg_temp, pg_catalog, public",
        )
        .expect("traps");
    for statement in INGESTS.iter().chain(&REPLAYS[..3]).chain(&RULES[..7]).chain(&RULES[8..9]) {
        let statement = statement.replace("now()", "pg_catalog.now()");
        admin.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let caught: Vec<String> =
        column(&mut client, "SELECT DISTINCT who FROM trap.caught WHERE who = 'postgres'");
    assert!(caught.is_empty(), "somebody's function ran with the owner's rights");
}

#[test]
fn functions_beside_ours_are_not_called_by_an_insert() {
    let scene = Scene::new("beside");
    let mut client = scene.database.connect();
    client.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", scene.writer)).expect("a grant");
    scene
        .database
        .connect_as(&scene.writer)
        .batch_execute(
            "CREATE FUNCTION public.ts_event(tailstream.log_events) RETURNS json LANGUAGE plpgsql
                 AS 'BEGIN RAISE EXCEPTION ''taken over''; END';
             CREATE FUNCTION public.ts_ingest(text, json) RETURNS void LANGUAGE plpgsql
                 AS 'BEGIN RAISE EXCEPTION ''taken over''; END'",
        )
        .expect("functions of somebody else");
    for (org, path) in [("acme", "/a"), ("other", "/b")] {
        let sql = format!(
            "INSERT INTO tailstream.log_events (org_id, path) VALUES ('{org}', '{path}') RETURNING path"
        );
        assert_eq!(one::<String>(&mut client, &sql), path);
    }
}

#[test]
fn a_writers_settings_do_not_say_where_chunks_are_made() {
    let scene = Scene::new("elsewhere");
    let mut client = scene.database.connect();
    let elsewhere = format!("{}_disk", scene.database.name);
    client.batch_execute("SET allow_in_place_tablespaces = on").expect("a setting");
    client.batch_execute(&format!("CREATE TABLESPACE {elsewhere} LOCATION ''")).expect("a tablespace");
    let mut writer = scene.database.connect_as(&scene.writer);
    writer.batch_execute(&format!("SET default_tablespace = {elsewhere}")).expect("a setting");
    let ingest = "SELECT ts_ingest('acme', json_build_object('ts', now() - interval '2 hours')),
                         ts_ingest_ndjson('acme', json_build_object('ts', now() - interval '1 hour')::text)";
    let sql = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'tailstream.events'::regclass";
    let before: i64 = one(&mut client, sql);
    writer.batch_execute(ingest).expect("events of other hours");
    assert!(one::<i64>(&mut client, sql) > before, "chunks are made");
    assert_eq!(one::<i64>(&mut client, &format!("{sql} AND c.reltablespace <> 0")), 0);
}
