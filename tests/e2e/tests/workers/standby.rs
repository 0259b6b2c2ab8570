//! A standby has no workers until it is promoted.

use std::process::Command;

use postgres::{Config, NoTls};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::postgres_install;
use tailstream_e2e::database::{ingest, one};
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::positions::{check_positions, soon_placed};
use tailstream_e2e::{Mirror, Sides, eventually};

use crate::{LONG, wait_for_workers};

#[test]
fn a_standby_has_workers_as_soon_as_it_is_promoted() {
    let mut mirror = Mirror::new("workers-standby");
    let mut sides = mirror.sides();
    sides.ingest("acme", 20);
    sides.settle(&["acme"]);

    // The copy is a directory in the primary's own, so that its user may write there; its server is ours to stop.
    let (cluster, data) = (&mirror.cluster, mirror.cluster.dir().join("standby"));
    let port = (cluster.port() + 1).to_string();
    let user = |program: &str| cluster.user().command(postgres_install::program(program));
    let run = |command: &mut Command| {
        let output = command.output().expect("a program");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(user("pg_basebackup").args(cluster.psql_args()).args(["--checkpoint=fast", "-R", "-D"]).arg(&data));
    let pg_ctl = |arguments: &[&str]| {
        let mut command = user("pg_ctl");
        command.arg("-D").arg(&data).args(arguments).args(["-w", "-s", "-t", "60"]);
        run(&mut command);
    };
    let socket = cluster.socket_dir().display().to_string();
    let options = format!("-p {port} -c unix_socket_directories={socket} -c listen_addresses=''");
    let log = data.join("log").display().to_string();
    pg_ctl(&["start", "-o", &options, "-l", &log]);
    let standby = || {
        let mut standby = Config::new();
        standby.host_path(cluster.socket_dir()).port(port.parse().expect("a port"));
        standby.user(SUPERUSER).dbname("app").connect(NoTls)
    };
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut client = standby().expect("a connection to the standby");
        sides.ingest("acme", 5);
        sides.settle(&["acme"]);
        let count = "SELECT count(*) FROM tailstream.positions WHERE org_id = 'acme'";
        eventually("the standby to follow", LONG, || (one::<i64>(&mut client, count) == 2).then_some(()));
        let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'tailstream%'";
        assert_eq!(one::<i64>(&mut client, workers), 0, "no workers on a standby");
        cluster.kill9().expect("kill -9 of the primary");
        assert!(one::<bool>(&mut client, "SELECT pg_promote(true, 30)"));
        wait_for_workers(&mut client, "app");
        let batch = ingest(&mut client, "acme", &some_events(3), None).expect("ingest").batch_id;
        soon_placed(&mut client, batch);
        check_positions(&mut client);
        let mut promoted = Sides::new(client, &mirror.redis, "tailstream:stream:{org}");
        promoted.settle(&["acme"]);
        assert_eq!(promoted.length("acme"), 28);
    }));
    pg_ctl(&["stop", "-m", "fast"]);
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
    mirror.cluster.start().expect("the old primary");
}
