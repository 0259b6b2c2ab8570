//! Who may page, and whom.

use postgres::Client;
use tailstream_e2e::database::{column, one};
use tailstream_e2e::{Database, refused};

use crate::HOUR;
use crate::page::{Direction, Request, places};
use crate::schedule::Schedule;

const PAGE: &str = "SELECT * FROM ts_replay_page('acme', NULL, NULL)";
const SCHEDULE: &str =
    "SELECT * FROM ts_replay_schedule('acme', now() - interval '1 hour', now() + interval '1 minute')";

fn fill(database: &Database) -> Client {
    let mut client = database.connect();
    for org in ["acme", "other"] {
        client.execute("SELECT ts_ingest($1, '[{},{},{}]')", &[&org]).expect("ingest");
    }
    client
}

#[test]
fn readers_may_page_and_others_may_not() {
    let database = crate::database("roles");
    fill(&database);
    for (role, groups, may) in [
        ("reader", &["tailstream_reader"][..], true),
        ("admin", &["tailstream_admin"], true),
        ("writer", &["tailstream_writer"], false),
        ("nobody", &[], false),
    ] {
        let mut client = database.connect_as(&database.login_role(role, groups));
        for sql in [PAGE, SCHEDULE] {
            match may {
                true => assert_eq!(
                    client.query(sql, &[]).unwrap_or_else(|error| panic!("{role}: {error:?}")).len(),
                    3
                ),
                false => drop(refused(role, client.query(sql, &[]), &["42501"])),
            }
        }
    }
}

#[test]
fn nobody_but_the_owner_reads_the_key() {
    let database = crate::database("key");
    let mut owner = fill(&database);
    assert_eq!(one::<i64>(&mut owner, "SELECT count(*) FROM tailstream.token_key"), 1);
    let groups = ["tailstream_reader", "tailstream_writer", "tailstream_admin"];
    let role = database.login_role("all", &groups);
    let mut client = database.connect_as(&role);
    // Paging reads the key for its caller; that opens no way to it.
    assert_eq!(client.query(PAGE, &[]).expect(PAGE).len(), 3);
    for sql in [
        "SELECT * FROM tailstream.token_key",
        "SELECT count(*) FROM tailstream.token_key",
        "SELECT k FROM tailstream.token_key k",
        "COPY tailstream.token_key TO STDOUT",
        "UPDATE tailstream.token_key SET key = key",
        "DELETE FROM tailstream.token_key",
        "TRUNCATE tailstream.token_key",
        "BEGIN; LOCK tailstream.token_key",
    ] {
        let error = client.simple_query(sql).expect_err(sql);
        let state = tailstream_e2e::sqlstate(&error);
        // A column of another name is not found before rights are looked at.
        assert!(["42501", "42703"].contains(&state.as_str()), "{sql}: {error:?}");
        client.batch_execute("ROLLBACK").expect("rollback");
    }
    let sql = "SELECT r.rolname || ' ' || p FROM pg_roles r, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
               WHERE NOT r.rolsuper AND r.rolname !~ '^pg_' AND has_table_privilege(r.oid, 'tailstream.token_key', p)";
    assert_eq!(column::<String>(&mut owner, sql), Vec::<String>::new());
    let statistics = "SELECT tablename::text FROM pg_stats WHERE tablename = 'token_key'";
    owner.batch_execute("ANALYZE tailstream.token_key").expect("statistics");
    assert_eq!(column::<String>(&mut client, statistics), Vec::<String>::new());
}

#[test]
fn a_bound_role_pages_its_own_org_alone() {
    let database = crate::database("bound");
    let mut owner = fill(&database);
    let role = database.login_role("bound", &["tailstream_reader"]);
    owner.batch_execute(&format!("ALTER ROLE {role} SET tailstream.org = 'acme'")).expect("a bound role");
    let mut client = database.connect_as(&role);
    let schedule = |org| Schedule::of(org, tailstream_devkit::event::now_micros() - HOUR);
    for direction in Direction::BOTH {
        let [own, others] = ["acme", "other"].map(|org| Request::of(org, direction));
        let foreign = others.page(&mut owner).remove(0);
        let genuine = own.page(&mut owner).remove(0);
        for (what, request) in [
            ("another org", others.clone()),
            ("another org's token for its org", others.after(&foreign)),
            ("another org's token for the own org", own.after(&foreign)),
            ("the own token for another org", others.after(&genuine)),
        ] {
            refused(what, request.try_page(&mut client), &["42501"]);
        }
        assert_eq!(places(&own.page(&mut client)), places(&own.page(&mut owner)), "its own");
        assert_eq!(own.after(&genuine).page(&mut client).len(), 2, "a token that another session got");
    }
    let foreign = schedule("other").plays(&mut owner).remove(0);
    for (what, schedule) in [
        ("another org", schedule("other")),
        ("another org's token for its org", schedule("other").after(&foreign)),
        ("another org's token for the own org", schedule("acme").after(&foreign)),
    ] {
        refused(what, schedule.try_plays(&mut client), &["42501"]);
    }
    assert_eq!(schedule("acme").plays(&mut client).len(), 3);
}
