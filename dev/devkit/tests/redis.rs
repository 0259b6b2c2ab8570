//! The private Redis server, for real.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use redis::{Connection, InfoDict};
use tailstream_devkit::Redis;
use tailstream_devkit::process::wait_until;
use tailstream_devkit::server_user::ServerUser;

/// Unique, so that two checkouts' tests, or two runs, never meet.
fn name(what: &str) -> String {
    format!("devkit-{what}-{}", process::id())
}

fn set(redis: &Redis, key: &str, value: &str) -> Result<()> {
    Ok(redis::cmd("SET").arg(key).arg(value).exec(&mut redis.connect()?)?)
}

fn get(redis: &Redis, key: &str) -> Result<Option<String>> {
    Ok(redis::cmd("GET").arg(key).query(&mut redis.connect()?)?)
}

fn ping(connection: &mut Connection) -> redis::RedisResult<String> {
    redis::cmd("PING").query(connection)
}

fn setting(redis: &Redis, name: &str) -> Result<String> {
    let (_, value): (String, String) =
        redis::cmd("CONFIG").arg("GET").arg(name).query(&mut redis.connect()?)?;
    Ok(value)
}

/// Runs redis-cli as the user PostgreSQL runs as.
fn redis_cli(arguments: &[String], command: &[&str]) -> Result<String> {
    let output = ServerUser::detect()?.command("redis-cli").args(arguments).args(command).output()?;
    let both = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&both).trim().to_owned())
}

#[test]
fn a_server_from_birth_to_death() -> Result<()> {
    let name = name("life");
    let mut redis = Redis::builder(&name).setting("maxmemory", "10mb").create()?;
    assert_eq!(ping(&mut redis.connect()?)?, "PONG");
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
    assert_eq!(redis_cli(&redis.cli_args(), &["PING"])?, "PONG");
    assert_eq!(setting(&redis, "maxmemory")?, "10485760");
    assert_eq!(setting(&redis, "bind")?, "127.0.0.1");
    assert_eq!(setting(&redis, "save")?, "");
    set(&redis, "k", "v")?;

    let second = Redis::builder(&name).setting("maxmemory", "10mb").ensure_running()?;
    assert_eq!(second.port(), redis.port());
    drop(second);
    assert_eq!(get(&redis, "k")?.as_deref(), Some("v"), "one that was only found is not stopped");
    assert!(Redis::all()?.iter().any(|found| found.name() == name && found.is_running()));

    let port = redis.port();
    redis.restart()?;
    assert_eq!(redis.port(), port);
    assert_eq!(get(&redis, "k")?, None, "nothing persists unless asked for");
    let (dir, process) = (redis.dir().to_owned(), redis.process().context("it runs")?);
    drop(redis);
    assert!(!dir.exists() && !process.is_alive());
    Ok(())
}

#[test]
fn a_found_server_with_other_settings_is_restarted() -> Result<()> {
    let name = name("settings");
    let first = Redis::builder(&name).create()?;
    let second = Redis::builder(&name).setting("maxmemory", "1mb").ensure_running()?;
    assert_eq!(setting(&second, "maxmemory")?, "1048576");
    assert_eq!(second.port(), first.port());
    let created = Redis::builder(&name).create()?;
    assert_eq!(setting(&created, "maxmemory")?, "0");
    drop(created);
    assert!(!first.dir().exists());
    Ok(())
}

#[test]
fn an_append_only_file_survives_all_but_its_loss() -> Result<()> {
    let mut redis =
        Redis::builder(&name("aof")).append_only(true).setting("appendfsync", "always").create()?;
    set(&redis, "a", "1")?;
    redis.restart()?;
    assert_eq!(get(&redis, "a")?.as_deref(), Some("1"));
    set(&redis, "b", "2")?;
    redis.kill9()?;
    assert!(!redis.is_running());
    assert!(redis.kill9().is_err());
    redis.start()?;
    assert_eq!(get(&redis, "b")?.as_deref(), Some("2"));
    let port = redis.port();
    for _ in 0..10 {
        redis.kill9()?;
        redis.start()?;
        assert_eq!(redis.port(), port);
    }
    redis.lose_data()?;
    assert!(!redis.is_running());
    redis.start()?;
    assert_eq!((get(&redis, "a")?, redis.port()), (None, port));
    Ok(())
}

#[test]
fn a_clean_stop_saves_and_a_kill_does_not() -> Result<()> {
    let mut redis = Redis::builder(&name("rdb")).setting("save", "3600 1").create()?;
    set(&redis, "a", "1")?;
    redis.restart()?;
    set(&redis, "b", "2")?;
    redis.kill9()?;
    redis.start()?;
    assert_eq!((get(&redis, "a")?.as_deref(), get(&redis, "b")?), (Some("1"), None));
    Ok(())
}

#[test]
fn a_paused_server_answers_nobody() -> Result<()> {
    let mut redis = Redis::builder(&name("pause")).create()?;
    let mut connection = redis.connect()?;
    connection.set_read_timeout(Some(Duration::from_millis(200)))?;
    redis.pause()?;
    assert!(redis.is_running());
    assert!(ping(&mut connection).is_err());
    redis.resume()?;
    assert_eq!(ping(&mut redis.connect()?)?, "PONG");

    redis.pause()?;
    redis.start()?;
    assert_eq!(ping(&mut redis.connect()?)?, "PONG");
    redis.pause()?;
    redis.restart()?;
    redis.pause()?;
    redis.kill9()?;
    redis.start()?;
    redis.pause()?;
    let (dir, process) = (redis.dir().to_owned(), redis.process().context("it runs")?);
    drop(redis);
    assert!(!dir.exists() && !process.is_alive());
    Ok(())
}

#[test]
fn a_password_is_asked_for() -> Result<()> {
    let password = "s3\"cr\\et @/:%";
    let redis = Redis::builder(&name("password")).password(password).create()?;
    assert_eq!(ping(&mut redis.connect()?)?, "PONG");
    assert_eq!(redis_cli(&redis.cli_args(), &["PING"])?, "PONG");
    let refused = ping(&mut redis::Client::open(redis.url())?.get_connection()?);
    assert!(
        refused.is_err_and(|error| error.to_string().contains("NOAUTH") || error.code() == Some("NOAUTH"))
    );
    let mut connection = redis::Client::open(redis.url_with_password())?.get_connection()?;
    assert_eq!(ping(&mut connection)?, "PONG");
    for secret in ["redis.json", "redis.conf"] {
        assert_eq!(fs::metadata(redis.dir().join(secret))?.permissions().mode() & 0o077, 0, "{secret}");
    }
    Ok(())
}

fn wait_for_link(replica: &Redis) -> Result<()> {
    let mut connection = replica.connect()?;
    wait_until("the replica to have its primary's data", Duration::from_secs(30), || {
        let info = redis::cmd("INFO").arg("replication").query::<InfoDict>(&mut connection);
        info.is_ok_and(|info| info.get::<String>("master_link_status").as_deref() == Some("up"))
    })
}

#[test]
fn a_replica_gets_the_data() -> Result<()> {
    let primary = Redis::builder(&name("primary")).password("p w").create()?;
    set(&primary, "before", "1")?;
    let mut replica = Redis::builder(&name("replica")).replica_of(&primary).create()?;
    wait_for_link(&replica)?;
    assert_eq!(get(&replica, "before")?.as_deref(), Some("1"));
    assert!(set(&replica, "own", "1").is_err());

    let mut connection = primary.connect()?;
    redis::cmd("SET").arg("after").arg("2").exec(&mut connection)?;
    let acknowledged: i32 = redis::cmd("WAIT").arg(1).arg(30_000).query(&mut connection)?;
    assert_eq!(acknowledged, 1);
    assert_eq!(get(&replica, "after")?.as_deref(), Some("2"));
    replica.lose_data()?;
    replica.start()?;
    wait_for_link(&replica)?;
    assert_eq!(get(&replica, "after")?.as_deref(), Some("2"));
    Ok(())
}

#[test]
fn tls_is_spoken_and_the_ca_is_for_everybody() -> Result<()> {
    let mut redis = Redis::builder(&name("tls")).tls(true).password("p").create()?;
    let ca = redis.ca_file().context("a CA")?;
    assert_eq!(redis.url(), format!("rediss://127.0.0.1:{}", redis.port()));
    assert_eq!(ping(&mut redis.connect()?)?, "PONG");
    assert_eq!(redis_cli(&redis.cli_args(), &["PING"])?, "PONG");
    assert_eq!(fs::metadata(&ca)?.permissions().mode() & 0o777, 0o644);
    for dir in ca.ancestors().skip(1) {
        assert_ne!(fs::metadata(dir)?.permissions().mode() & 0o001, 0, "{} is closed", dir.display());
    }
    assert_eq!(fs::metadata(redis.dir().join("server.key"))?.permissions().mode() & 0o077, 0);

    // The host name is in the certificate too; another authority is not trusted; plain talk ends.
    let port = redis.port().to_string();
    let arguments = |host: &str, rest: &[&str]| {
        [&["-h", host, "-p", &port, "--no-auth-warning", "-a", "p"], rest]
            .concat()
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let ca_text = ca.to_string_lossy().into_owned();
    assert_eq!(redis_cli(&arguments("localhost", &["--tls", "--cacert", &ca_text]), &["PING"])?, "PONG");
    let other = Redis::builder(&name("tls-other")).tls(true).create()?;
    let other_ca = other.ca_file().context("a CA")?.to_string_lossy().into_owned();
    let distrusted = redis_cli(&arguments("127.0.0.1", &["--tls", "--cacert", &other_ca]), &["PING"])?;
    assert!(distrusted.contains("certificate verify failed"), "{distrusted}");
    assert_ne!(redis_cli(&arguments("127.0.0.1", &[]), &["PING"])?, "PONG");

    let trusted = fs::read(&ca)?;
    redis.restart()?;
    assert_eq!(fs::read(&ca)?, trusted);
    set(&redis, "k", "v")?;
    for tls in [true, false] {
        let replica = Redis::builder(&name("tls-replica")).tls(tls).replica_of(&redis).create()?;
        wait_for_link(&replica)?;
        assert_eq!(get(&replica, "k")?.as_deref(), Some("v"));
    }
    Ok(())
}

#[test]
fn a_taken_port_is_given_up() -> Result<()> {
    let mut redis = Redis::builder(&name("port")).create()?;
    let port = redis.port();
    redis.stop()?;
    let squatter = std::net::TcpListener::bind(("127.0.0.1", port))?;
    redis.start()?;
    assert_ne!(redis.port(), port);
    assert_eq!(ping(&mut redis.connect()?)?, "PONG");
    drop(squatter);
    Ok(())
}

#[test]
fn a_bad_setting_shows_what_the_server_said() -> Result<()> {
    let name = name("bad");
    let error = Redis::builder(&name).setting("maxmemory", "lots").create().err();
    let error = format!("{:#}", error.context("it started")?);
    assert!(error.contains("maxmemory lots"), "{error}");
    assert!(Redis::builder(&name).setting("save", "\nport 1").create().is_err());
    assert!(Redis::all()?.iter().all(|redis| redis.name() != name));
    Ok(())
}

/// A checkout of its own, in which `stop` and `clean` touch nobody else's servers.
#[test]
fn a_kept_server_is_stopped_and_cleaned_with_its_checkout() -> Result<()> {
    let root = Path::new("/var/tmp").join(name("checkout"));
    fs::create_dir_all(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("tailstream.control"), "")?;
    let run = |program: &Path, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).current_dir(&root).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    };
    let keep = || run(&env::current_exe()?, &["--ignored", "--exact", "keeps_a_server"]);
    let dev = |action: &str| run(Path::new(env!("CARGO_BIN_EXE_tailstream-dev")), &[action]);

    keep()?;
    assert_eq!(dev("stop")?, "stopped Redis kept\n");
    assert_eq!(dev("stop")?, "no private server of this checkout is running\n");
    keep()?;
    assert_eq!(dev("clean")?, "removed Redis kept\n");
    assert!(!root.join("target/clusters").exists());
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// A process of its own, which ends while its server goes on.
#[test]
#[ignore = "the test above runs it, in another directory"]
fn keeps_a_server() -> Result<()> {
    Redis::builder("kept").append_only(true).keep(true).ensure_running()?;
    let redis = Redis::builder("kept").append_only(true).keep(true).ensure_running()?;
    assert_eq!(ping(&mut redis.connect()?)?, "PONG");
    Ok(())
}
