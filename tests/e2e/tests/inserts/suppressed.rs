//! Triggers of users on our tables: a batch is stored whole, as it was announced, or not at all.

use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::{Database, refused};

use crate::{batches, check_ledger, database, stored};

const TRIGGER: &str = "27000";

/// A database with a trigger that runs this for each row that path /special has.
fn scene(name: &str, table: &str, body: &str) -> Database {
    let database = database(name);
    let mut client = database.connect();
    // The chunk is known before.
    ingest(&mut client, "acme", r#"[{"path":"/before"}]"#, None).expect("an event");
    add_trigger(&database, table, body);
    database
}

fn add_trigger(database: &Database, table: &str, body: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
         CREATE OR REPLACE TRIGGER meddle BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION meddle()"
    );
    database.connect().batch_execute(&sql).expect("a trigger");
}

const BATCHES: [&str; 4] = [
    r#"[{"path":"/special"}]"#,
    r#"[{"path":"/special"},{"path":"/other"}]"#,
    r#"[{"path":"/other"},{"path":"/special"}]"#,
    r#"[{"path":"/other"},{"path":"/special"},{"path":"/other"}]"#,
];

#[test]
fn a_trigger_that_suppresses_or_moves_an_event_is_refused() {
    let database = scene("meddled", "tailstream.events", "");
    for body in [
        "IF NEW.path = '/special' THEN RETURN NULL; END IF;",
        "IF NEW.path = '/special' THEN NEW.id := NEW.id + 1; END IF;",
        "IF NEW.path = '/special' THEN NEW.id := 7; END IF;",
        "IF NEW.path = '/special' THEN NEW.org_id := 'other'; END IF;",
        "IF NEW.path = '/special' THEN NEW.created_at := NEW.created_at - interval '1 microsecond'; END IF;",
        "IF NEW.path = '/special' THEN NEW.created_at := NEW.created_at - interval '1 hour'; END IF;",
        "IF NEW.path = '/special' THEN NEW.tier := 2; END IF;",
    ] {
        add_trigger(&database, "tailstream.events", body);
        for lane in ["auto", "executor"] {
            // In a session of its own, which knows no chunk.
            let mut client = database.connect();
            client.batch_execute(&format!("SET tailstream.ingest_lane = {lane}")).expect("lane");
            for events in BATCHES {
                // What does not belong into the chunk any more is refused by that.
                let error = refused(body, ingest(&mut client, "acme", events, None), &[TRIGGER, "23514"]);
                let says_why = error.message().contains("trigger") && error.hint().is_some();
                assert!(says_why || error.code().code() == "23514", "{error:?}");
                let insert = "INSERT INTO tailstream.log_events (org_id, path) VALUES ('acme', '/other'), ('acme', '/special')";
                refused(body, client.batch_execute(insert), &[TRIGGER, "23514"]);
            }
            ingest(&mut client, "acme", r#"[{"path":"/fine"},{"path":"/fine"}]"#, None)
                .expect("other events");
        }
    }
    let mut client = database.connect();
    assert_eq!(
        (stored(&mut client, "/special"), stored(&mut client, "/other"), stored(&mut client, "/fine")),
        (0, 0, 28)
    );
    check_ledger(&mut client);
}

#[test]
fn a_trigger_may_change_what_an_event_says() {
    let database =
        scene("anonymous", "tailstream.events", "NEW.ip_address := NULL; NEW.path := '/x' || NEW.path;");
    let mut client = database.connect();
    let events = r#"[{"path":"/a","ip":"10.0.0.1"},{"path":"/b","ip":"10.0.0.2"}]"#;
    assert_eq!(ingest(&mut client, "acme", events, None).expect("a batch").accepted, 2);
    assert_eq!(stored(&mut client, "/x%"), 2);
    assert_eq!(one::<i64>(&mut client, "SELECT count(ip_address) FROM tailstream.events"), 0);
    check_ledger(&mut client);
}

#[test]
fn the_ledger_and_the_quarantine_lose_nothing_either() {
    let database = scene("unrecorded", "tailstream.batches", "RETURN NULL;");
    let mut client = database.connect();
    let before = batches(&mut client, "acme").len();
    refused("no ledger", ingest(&mut client, "acme", "[{}]", None), &[TRIGGER]);
    assert_eq!(batches(&mut client, "acme").len(), before);
    client.batch_execute("DROP TRIGGER meddle ON tailstream.batches").expect("no trigger");
    add_trigger(&database, "tailstream.rejected_events", "IF NEW.position = 1 THEN RETURN NULL; END IF;");
    let quarantined = client
        .execute("SELECT ts_ingest('acme', '[{},{\"status\":\"x\"}]', on_invalid => 'quarantine')", &[]);
    refused("no quarantine", quarantined, &[TRIGGER]);
    assert_eq!(batches(&mut client, "acme").len(), before);
    client.batch_execute("DROP TRIGGER meddle ON tailstream.rejected_events").expect("no trigger");
    add_trigger(&database, "tailstream.orgs", "RETURN NULL;");
    refused("an org that does not register", ingest(&mut client, "new", "[{}]", None), &[TRIGGER]);
}
