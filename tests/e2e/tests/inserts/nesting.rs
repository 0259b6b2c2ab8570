//! Statements inside of statements, and parts of transactions that are undone.

use tailstream_e2e::database::one;
use tailstream_e2e::refused;

use crate::{batches, check_ledger, database, stored};

const INSERT: &str = "INSERT INTO tailstream.log_events (org_id, path)";

#[test]
fn what_is_rolled_back_leaves_nothing_and_the_rest_stays() {
    let database = database("undone");
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "BEGIN;
             {INSERT} VALUES ('acme', '/stays/1'), ('acme', '/stays/2');
             SAVEPOINT a;
             {INSERT} VALUES ('acme', '/goes/1'), ('acme', '/goes/2');
             SAVEPOINT b;
             {INSERT} VALUES ('acme', '/goes/3');
             RELEASE b;
             ROLLBACK TO a;
             {INSERT} VALUES ('acme', '/stays/3');
             COMMIT"
        ))
        .expect("a transaction");
    assert_eq!((stored(&mut client, "/stays/%"), stored(&mut client, "/goes/%")), (3, 0));
    // A statement that fails after some of its rows, inside a block that goes on.
    client
        .batch_execute(&format!(
            "DO $$
             BEGIN
                 FOR n IN 1..3 LOOP
                     BEGIN
                         {INSERT} SELECT 'acme', '/goes/' || 1 / (5 - m) FROM generate_series(1, 9) m;
                     EXCEPTION WHEN division_by_zero THEN
                         {INSERT} VALUES ('acme', '/stays/4');
                     END;
                 END LOOP;
             END $$"
        ))
        .expect("a block");
    assert_eq!((stored(&mut client, "/stays/%"), stored(&mut client, "/goes/%")), (6, 0));
    let failed = format!("{INSERT} SELECT 'acme', '/goes/' || 1 / (5 - m) FROM generate_series(1, 9) m");
    refused("a division", client.batch_execute(&failed), &["22012"]);
    client.batch_execute(&format!("{INSERT} VALUES ('acme', '/stays/5')")).expect("the next statement");
    assert_eq!((stored(&mut client, "/stays/%"), stored(&mut client, "/goes/%")), (7, 0));
    check_ledger(&mut client);
}

#[test]
fn a_statement_inside_another_one_keeps_to_its_own_part() {
    let database = database("nested");
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "CREATE FUNCTION inner_one(n int, fails boolean) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN
                 {INSERT} VALUES ('inner', '/inner/' || n), ('inner', '/inner/' || n);
                 BEGIN
                     {INSERT} SELECT 'inner', '/caught/' || m FROM generate_series(1, 3) m;
                     IF fails THEN
                         RAISE division_by_zero;
                     END IF;
                 EXCEPTION WHEN division_by_zero THEN
                     NULL;
                 END;
                 RETURN '/outer/' || n;
             END $$"
        ))
        .expect("a function");
    let outer = |fails: bool| {
        format!("{INSERT} SELECT 'outer', inner_one(n, {fails}) FROM generate_series(1, 10) n RETURNING id")
    };
    for (fails, caught) in [(true, 0), (false, 30)] {
        let rows = client.query(&outer(fails), &[]).expect("rows within rows");
        assert_eq!(rows.len(), 10);
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let there = "SELECT count(*) FROM tailstream.events WHERE id = ANY ($1) AND path LIKE '/outer/%'";
        assert_eq!(client.query_one(there, &[&ids]).expect("events").get::<_, i64>(0), 10);
        assert_eq!(stored(&mut client, "/caught/%"), caught);
    }
    assert_eq!((stored(&mut client, "/outer/%"), stored(&mut client, "/inner/%")), (20, 40));
    check_ledger(&mut client);
    // A trigger of the user's that inserts while a batch is being stored.
    client
        .batch_execute(&format!(
            "CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.path LIKE '/first/%' THEN
                     {INSERT} VALUES ('echo', '/echo'), ('echo', '/echo');
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER echo AFTER INSERT ON tailstream.events FOR EACH ROW EXECUTE FUNCTION echo()"
        ))
        .expect("a trigger");
    client
        .batch_execute(&format!("{INSERT} SELECT 'acme', '/first/' || n FROM generate_series(1, 4) n"))
        .expect("rows");
    assert_eq!((stored(&mut client, "/first/%"), stored(&mut client, "/echo")), (4, 8));
    check_ledger(&mut client);
}

#[test]
fn what_was_inserted_is_seen_by_what_comes_next() {
    let database = database("seen");
    let mut client = database.connect();
    let mut transaction = client.transaction().expect("a transaction");
    let count = "SELECT count(*) FROM tailstream.log_events WHERE org_id = 'acme'";
    for n in 1..=3 {
        transaction.batch_execute(&format!("{INSERT} VALUES ('acme', '/a'), ('acme', '/b')")).expect("rows");
        assert_eq!(one::<i64>(&mut transaction, count), 2 * n);
    }
    transaction.rollback().expect("rollback");
    assert_eq!(one::<i64>(&mut client, count), 0);
    let block = format!(
        "DO $$ DECLARE n int; BEGIN {INSERT} VALUES ('acme', '/a'), ('acme', '/b');
         SELECT count(*) INTO n FROM tailstream.log_events; ASSERT n = 2; END $$"
    );
    client.batch_execute(&block).expect("a block");
    assert_eq!(batches(&mut client, "acme"), [2]);
    // Two in one statement are one batch for each org, too.
    let both = format!(
        "WITH a AS ({INSERT} VALUES ('two', '/a') RETURNING id), b AS ({INSERT} VALUES ('two', '/b') RETURNING id) SELECT (SELECT id FROM a), (SELECT id FROM b)"
    );
    let row = client.query_one(&both, &[]).expect("two inserts");
    assert_ne!(row.get::<_, i64>(0), row.get::<_, i64>(1));
    assert_eq!(batches(&mut client, "two"), [2]);
    check_ledger(&mut client);
}
