//! The private server, for real.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{fs, process};

use anyhow::Result;
use tailstream_devkit::Cluster;

/// Unique, so that two checkouts' tests, or two runs, never meet.
fn name(what: &str) -> String {
    format!("devkit-{what}-{}", process::id())
}

fn one(cluster: &Cluster, database: &str, sql: &str) -> Result<String> {
    Ok(cluster.connect(database)?.query_one(sql, &[])?.get(0))
}

#[test]
fn a_cluster_from_birth_to_death() -> Result<()> {
    let name = name("life");
    let mut cluster =
        Cluster::builder(&name).cron_database("app \"x\"").setting("work_mem", "5MB").create()?;
    cluster.create_database("app \"x\"")?;
    let database = "app \"x\"";
    assert_eq!(one(&cluster, database, "SELECT current_setting('work_mem')")?, "5MB");
    assert_eq!(one(&cluster, database, "SELECT current_setting('fsync')")?, "on");
    assert_eq!(
        one(&cluster, database, "SELECT current_setting('shared_preload_libraries')")?,
        "timescaledb,pg_cron"
    );
    let mut client = postgres::Client::connect(&cluster.conn_string(database), postgres::NoTls)?;
    client.batch_execute("CREATE EXTENSION timescaledb; CREATE EXTENSION pg_cron; CREATE ROLE app LOGIN")?;
    cluster.connect_as(database, "app")?;

    let second =
        Cluster::builder(&name).cron_database("app \"x\"").setting("work_mem", "5MB").ensure_running()?;
    assert_eq!(second.port(), cluster.port());
    drop(second);
    assert!(cluster.is_running(), "one that was only found is not stopped");

    let port = cluster.port();
    cluster.restart()?;
    assert_eq!(cluster.port(), port);
    cluster.drop_database(database)?;
    let dir = cluster.dir().to_owned();
    drop(cluster);
    assert!(!dir.exists());
    Ok(())
}

#[test]
fn killing_loses_nothing_committed() -> Result<()> {
    let mut cluster = Cluster::builder(&name("kill")).create()?;
    cluster.connect("postgres")?.batch_execute("CREATE TABLE kept (round int)")?;
    for round in 0..3 {
        let mut client = cluster.connect("postgres")?;
        client.execute("INSERT INTO kept VALUES ($1)", &[&round])?;
        let mut open = client.transaction()?;
        open.execute("INSERT INTO kept VALUES (-1)", &[])?;
        let children =
            cluster.postmaster().map(|postmaster| postmaster.children()).transpose()?.unwrap_or_default();
        assert!(children.len() > 3);
        cluster.kill9()?;
        assert!(!cluster.is_running());
        assert!(!children.iter().any(|child| child.is_alive()));
        cluster.start()?;
    }
    assert_eq!(
        one(&cluster, "postgres", "SELECT array_agg(round ORDER BY round)::text FROM kept")?,
        "{0,1,2}"
    );
    Ok(())
}

#[test]
fn a_found_cluster_with_other_settings_is_restarted() -> Result<()> {
    let name = name("settings");
    let first = Cluster::builder(&name).create()?;
    let second = Cluster::builder(&name).preload(&["pg_cron"]).ensure_running()?;
    assert_eq!(one(&second, "postgres", "SELECT current_setting('shared_preload_libraries')")?, "pg_cron");
    drop(second);
    assert!(!first.dir().exists());
    Ok(())
}

#[test]
fn a_long_path_and_a_socket_elsewhere() -> Result<()> {
    let base = Path::new("/var/tmp").join(name("long"));
    fs::create_dir_all(&base)?;
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
    let cluster = Cluster::builder("x").dir(base.join("d".repeat(100)).join("x")).create()?;
    let socket = cluster.socket_dir().to_owned();
    assert!(!socket.starts_with(&base));
    assert_eq!(one(&cluster, "postgres", "SELECT 'up'")?, "up");
    drop(cluster);
    assert!(!socket.exists());
    fs::remove_dir_all(&base)?;
    Ok(())
}

#[test]
fn a_directory_with_something_else_in_it_is_left_alone() -> Result<()> {
    let base = std::env::temp_dir().join(name("foreign"));
    fs::create_dir_all(base.join("x"))?;
    fs::write(base.join("x/letter.txt"), "dear")?;
    let error = Cluster::builder("x").dir(base.join("x")).create().err().map(|error| error.to_string());
    assert!(error.unwrap_or_default().contains("no cluster of ours"));
    assert_eq!(fs::read_to_string(base.join("x/letter.txt"))?, "dear");
    fs::remove_dir_all(&base)?;
    Ok(())
}

#[test]
fn a_bad_setting_shows_what_the_server_said() {
    let name = name("bad");
    let error = Cluster::builder(&name).setting("work_mem", "lots").create().err();
    let error = format!("{:#}", error.unwrap_or_else(|| anyhow::anyhow!("it started")));
    assert!(error.contains("invalid value for parameter \"work_mem\""), "{error}");
    assert!(Cluster::all().is_ok_and(|all| all.iter().all(|cluster| cluster.name() != name)));
}
