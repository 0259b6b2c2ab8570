//! Cursors and tokens outlive the extension and the server.

use std::process::Command;

use postgres::{Client, NoTls};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::{Cluster, postgres_install};
use tailstream_e2e::cursor::{Fetched, ack, fetch, fetched, labels, page, store};
use tailstream_e2e::database::{column, config};
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Server, refused};

use crate::{ORDERS, create, database, store_placed};

/// Cursors of both orders that stand amid a batch, with the tokens of what is next, and a page's token.
struct Readers {
    next: Vec<Vec<Fetched>>,
    page: Vec<Fetched>,
    listed: Vec<String>,
}

const LISTED: &str =
    "SELECT (to_jsonb(c) - 'lag' - 'last_active' - 'expires_at')::text FROM tailstream.cursors c ORDER BY 1";

fn prepare(client: &mut Client) -> Readers {
    store(client, "acme", &[("a", 50), ("b", 40)]);
    let last = store(client, "acme", &[("c", 30), ("d", 20)]);
    soon_placed(client, last);
    let next = ORDERS.map(|order| {
        create(
            client,
            &format!(r#"'{order}', 'acme', filter => '{{"status": 200}}', order_by => '{order}'"#),
        );
        fetched(client, &format!("'{order}', 1, auto_ack => true"));
        fetched(client, &format!("'{order}'"))
    });
    let page = page(client, "'acme', NULL, NULL, page_size => 2");
    Readers { next: next.to_vec(), page, listed: column(client, LISTED) }
}

#[track_caller]
fn check(client: &mut Client, readers: &Readers) {
    assert_eq!(column::<String>(client, LISTED), readers.listed);
    for (order, rows) in ORDERS.iter().zip(&readers.next) {
        let again = fetched(client, &format!("'{order}'"));
        assert_eq!(labels(&again), ["b", "c", "d"], "{order}");
        assert_eq!(labels(&again), labels(rows));
        assert!(ack(client, order, &rows[0].cursor).expect("a token from before"), "{order}");
        assert_eq!(labels(&fetched(client, &format!("'{order}', 1"))), ["c"], "{order}");
        let start = format!("'new {order}', 'acme', start => '{}', order_by => '{order}'", rows[1].cursor);
        create(client, &start);
        assert_eq!(labels(&fetched(client, &format!("'new {order}'"))), ["d"], "{order}");
    }
    let after = format!("'acme', NULL, NULL, after => '{}'", readers.page[0].cursor);
    assert_eq!(labels(&page(client, &after)), ["b", "c", "d"]);
    let batch = store(client, "acme", &[("e", 0)]);
    soon_placed(client, batch);
    for order in ORDERS {
        let rows = fetched(client, &format!("'{order}', auto_ack => true"));
        assert_eq!(labels(&rows), ["c", "d", "e"], "{order}");
        assert_eq!(fetched(client, &format!("'{order}'")), []);
    }
}

#[test]
fn cursors_and_tokens_outlive_the_extension() {
    let database = database("leaves");
    let mut client = database.connect();
    store_placed(&mut client, "other", &[("x", 0)]);
    let readers = prepare(&mut client);
    client.batch_execute("DROP EXTENSION tailstream").expect("DROP EXTENSION");
    refused("a fetch without the extension", fetch(&mut client, "'arrival'"), &["42883"]);
    client.batch_execute("CREATE EXTENSION tailstream").expect("CREATE EXTENSION");
    check(&mut client, &readers);
}

fn server(name: &str) -> (Cluster, Client) {
    let cluster =
        Server::create(name, |builder| builder.preload(&PRELOAD).setting("tailstream.databases", "app"));
    cluster.create_database("app").expect("a database");
    let client = connect(&cluster);
    (cluster, client)
}

fn connect(cluster: &Cluster) -> Client {
    config(cluster, "app", SUPERUSER).connect(NoTls).expect("a connection")
}

#[test]
fn cursors_and_tokens_move_with_a_dump() {
    let (source, mut client) = server("cursors-dumped");
    client.batch_execute("CREATE EXTENSION tailstream CASCADE").expect("CREATE EXTENSION");
    store_placed(&mut client, "other", &[("x", 0)]);
    let readers = prepare(&mut client);
    let file = source.dir().join("dump");
    let file = file.to_str().expect("a path");
    run(&source, "pg_dump", &["-Fc", "-f", file, "app"]);

    let (target, mut client) = server("cursors-restored");
    client
        .batch_execute("CREATE EXTENSION timescaledb; SELECT timescaledb_pre_restore()")
        .expect("before the restore");
    run(&target, "pg_restore", &["--exit-on-error", "-d", "app", file]);
    // What comes now comes in sessions that begin after the restore, as it would by hand.
    let mut client = connect(&target);
    client.batch_execute("SELECT timescaledb_post_restore()").expect("after the restore");
    let mut client = connect(&target);
    client.batch_execute("SELECT tailstream.attach_storage()").expect("attach_storage");
    check(&mut client, &readers);
    for role in ["tailstream_reader", "tailstream_admin"] {
        client.batch_execute(&format!("SET ROLE {role}")).expect("SET ROLE");
        refused(role, client.execute("SELECT * FROM tailstream.token_key", &[]), &["42501"]);
        fetched(&mut client, "'arrival'");
        client.batch_execute("RESET ROLE").expect("RESET ROLE");
    }
}

fn run(cluster: &Cluster, program: &str, arguments: &[&str]) {
    let output = Command::new(postgres_install::program(program))
        .args(cluster.psql_args())
        .args(arguments)
        .output()
        .expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
