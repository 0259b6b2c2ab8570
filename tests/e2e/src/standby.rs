//! A standby of a test's own server.

use std::path::PathBuf;
use std::process::Command;

use postgres::{Client, Config, NoTls};
use tailstream_devkit::Cluster;
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::postgres_install;
use tailstream_devkit::server_user::ServerUser;

use crate::database::one;

/// A copy of a server that follows it from then on, while it runs and the server can be reached.
#[derive(Debug)]
pub struct Standby {
    user: ServerUser,
    data: PathBuf,
    socket_dir: PathBuf,
    port: u16,
    is_running: bool,
}

impl Standby {
    /// Copies the server as it is now. Not started yet.
    pub fn copy(cluster: &Cluster) -> Self {
        // A directory in the primary's own, so that its user may write there; the server is ours to stop.
        let data = cluster.dir().join("standby");
        let mut copy = cluster.user().command(postgres_install::program("pg_basebackup"));
        run(copy.args(cluster.psql_args()).args(["--checkpoint=fast", "-R", "-D"]).arg(&data));
        let socket_dir = cluster.socket_dir().to_owned();
        Self { user: cluster.user().clone(), data, socket_dir, port: cluster.port() + 1, is_running: false }
    }

    pub fn start(&mut self) {
        let socket = self.socket_dir.display();
        let options = format!("-p {} -c unix_socket_directories={socket} -c listen_addresses=''", self.port);
        let log = self.data.join("log").display().to_string();
        run(&mut self.pg_ctl(&["start", "-o", &options, "-l", &log]));
        self.is_running = true;
    }

    pub fn connect(&self, database: &str) -> Client {
        let mut config = Config::new();
        config.host_path(&self.socket_dir).port(self.port).user(SUPERUSER).dbname(database);
        config.connect(NoTls).expect("a connection to the standby")
    }

    pub fn promote(&self, client: &mut Client) {
        assert!(one::<bool>(client, "SELECT pg_promote(true, 30)"), "the standby is not promoted");
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Command {
        let mut command = self.user.command(postgres_install::program("pg_ctl"));
        command.arg("-D").arg(&self.data).args(arguments).args(["-w", "-s", "-t", "60"]);
        command
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if self.is_running {
            let stopped = self.pg_ctl(&["stop", "-m", "immediate"]).status();
            if !stopped.is_ok_and(|status| status.success()) {
                eprintln!("the standby in {} cannot be stopped", self.data.display());
            }
        }
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("a program");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
