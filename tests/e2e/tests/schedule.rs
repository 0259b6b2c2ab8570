//! The purge run by a real pg_cron, in its own database and from another one.

use std::time::Duration;

use postgres::Client;
use tailstream_e2e::database::{column, one};
use tailstream_e2e::server::PRELOAD;
use tailstream_e2e::{Database, Server, eventually, refused};

const HOME: &str = "cron_home";
const PATIENCE: Duration = Duration::from_secs(60);

fn store_expired(client: &mut Client) {
    let sql = "INSERT INTO tailstream.events (id, created_at, org_id, tier) VALUES (1, now() - interval '6 hours', 'acme', 1)";
    client.batch_execute(sql).expect("an expired event");
}

/// Nobody calls the purge but pg_cron.
fn wait_for_purge(client: &mut Client) {
    eventually("pg_cron to run the purge", PATIENCE, || {
        (one::<i64>(client, "SELECT count(*) FROM tailstream.events") == 0).then_some(())
    });
}

fn jobs(client: &mut Client) -> Vec<String> {
    column(client, "SELECT jobname || ' ' || schedule || ' ' || database FROM cron.job ORDER BY 1")
}

#[test]
fn pg_cron_runs_the_purge() {
    let server = Server::shared_with("schedule", |builder| builder.preload(&PRELOAD).cron_database(HOME));
    let home = Database::new(&server, HOME);
    let mut client = home.connect();
    let missing = client.execute("SELECT ts_schedule_retention()", &[]);
    let hint = refused("without the extension", missing, &["55000"]).hint().map(str::to_owned);
    let statement = hint.as_deref().and_then(|hint| hint.strip_prefix("Run: ")).expect("a hint");
    client.batch_execute(statement).expect("what the hint says");

    in_its_own_database(&mut client);
    from_another_database(&server, &mut client);
}

fn in_its_own_database(client: &mut Client) {
    for schedule in [
        "''",
        "'infinity'",
        "'-1 seconds'",
        "'0 seconds'",
        "'99999999999 seconds'",
        "'1 month'",
        "'* * * *'",
        "repeat('* ', 100000)",
    ] {
        let call = format!("SELECT ts_schedule_retention({schedule})");
        refused(&call, client.execute(&call, &[]), &["22023"]);
    }
    refused("NULL", client.execute("SELECT ts_schedule_retention(NULL)", &[]), &["22004"]);
    assert!(jobs(client).is_empty());
    let health = "SELECT status FROM ts_health() WHERE component = 'retention job'";
    assert_eq!(one::<String>(client, health), "warning");
    store_expired(client);
    let job: i64 = one(client, "SELECT ts_schedule_retention('1 second')");
    assert_eq!(
        jobs(client),
        [
            "tailstream-retention-cron_home 1 second cron_home",
            "tailstream-run-log-cron_home 17 * * * * cron_home"
        ]
    );
    assert_eq!(one::<String>(client, health), "ok");
    wait_for_purge(client);
    let runs =
        format!("SELECT count(*) FROM cron.job_run_details WHERE jobid = {job} AND status = 'succeeded'");
    eventually("a run in the log", PATIENCE, || (one::<i64>(client, &runs) > 0).then_some(()));
    let failures: Vec<String> =
        column(client, "SELECT return_message FROM cron.job_run_details WHERE status = 'failed'");
    assert!(failures.is_empty(), "{failures:?}");

    assert_eq!(one::<i64>(client, "SELECT ts_schedule_retention()"), job, "a new schedule for the same job");
    assert_eq!(jobs(client).len(), 2);
    assert_eq!(
        one::<String>(client, &format!("SELECT schedule FROM cron.job WHERE jobid = {job}")),
        "* * * * *"
    );

    // The other job keeps the log short; its hour need not come for that.
    client
        .batch_execute(&format!(
            "INSERT INTO cron.job_run_details (jobid, runid, end_time) VALUES ({job}, -1, now() - interval '2 days'),
                 ({job}, -2, now() - interval '1 hour'), (-7, -3, now() - interval '2 days')"
        ))
        .expect("old runs");
    let command: String =
        one(client, "SELECT command FROM cron.job WHERE jobname LIKE 'tailstream-run-log-%'");
    client.batch_execute(&command).expect("the run-log job's command");
    let left: Vec<i64> =
        column(client, "SELECT runid FROM cron.job_run_details WHERE runid < 0 ORDER BY runid");
    assert_eq!(left, [-3, -2], "old runs of our own jobs are gone, others stay");

    assert!(one::<bool>(client, "SELECT ts_unschedule_retention()"));
    assert_eq!(jobs(client), Vec::<String>::new());
    assert!(!one::<bool>(client, "SELECT ts_unschedule_retention()"));
    refused(
        "no schedule",
        client.execute("SELECT ts_schedule_retention('every now and then')", &[]),
        &["XX000", "22023"],
    );
}

fn from_another_database(server: &Server, home: &mut Client) {
    let elsewhere = Database::new(server, "else'where");
    let mut client = elsewhere.connect();
    store_expired(&mut client);
    let refusal = client.execute("SELECT ts_schedule_retention('1 second')", &[]);
    let error = refused("pg_cron lives elsewhere", refusal, &["55000"]);
    assert!(error.message().contains(HOME), "{error}");
    let statements = error.hint().and_then(|hint| hint.strip_prefix("Run there: ")).expect("a hint");
    home.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    assert_eq!(
        jobs(home),
        [
            "tailstream-retention-else'where 1 second else'where",
            "tailstream-run-log-else'where 17 * * * * cron_home"
        ]
    );
    wait_for_purge(&mut client);

    let refusal = client.execute("SELECT ts_unschedule_retention()", &[]);
    let error = refused("pg_cron lives elsewhere", refusal, &["55000"]);
    let (place, statement) = error.hint().and_then(|hint| hint.split_once(": ")).expect("a hint");
    assert_eq!(place, format!("Run in database \"{HOME}\""));
    home.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    assert_eq!(jobs(home), Vec::<String>::new());
}
