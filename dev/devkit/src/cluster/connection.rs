//! Connecting to the server, and making databases.

use std::path::Path;

use anyhow::{Context, Result};
use postgres::{Client, Config, NoTls};

use super::Cluster;

/// The superuser of every cluster.
pub const SUPERUSER: &str = "postgres";

impl Cluster {
    /// A superuser's connection over the private socket.
    pub fn connect(&self, database: &str) -> Result<Client> {
        self.connect_as(database, SUPERUSER)
    }

    /// A connection as any role: the socket trusts whoever can open it.
    pub fn connect_as(&self, database: &str, user: &str) -> Result<Client> {
        Config::new()
            .host_path(self.socket_dir())
            .port(self.port())
            .user(user)
            .dbname(database)
            .application_name("tailstream-devkit")
            .connect(NoTls)
            .with_context(|| {
                format!("cannot connect to database {database:?} of cluster {} as {user}", self.name())
            })
    }

    /// A connection string for libpq and for the `postgres` crates, as superuser.
    pub fn conn_string(&self, database: &str) -> String {
        self.conn_string_as(database, SUPERUSER)
    }

    pub fn conn_string_as(&self, database: &str, user: &str) -> String {
        format!(
            "host={} port={} user={} dbname={}",
            quote_value(&path_text(self.socket_dir())),
            self.port(),
            quote_value(user),
            quote_value(database)
        )
    }

    /// The arguments that make `psql`, `pg_dump` and the like talk to this server.
    pub fn psql_args(&self) -> Vec<String> {
        let port = self.port().to_string();
        let socket_dir = path_text(self.socket_dir());
        ["-h", &socket_dir, "-p", &port, "-U", SUPERUSER].map(str::to_owned).to_vec()
    }

    /// Makes an empty database. From `template0`: the workers of extensions connect to `template1`
    /// at times, and CREATE DATABASE fails while they do.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let sql = format!("CREATE DATABASE {} TEMPLATE template0", quote_ident(name));
        self.connect("postgres")?
            .batch_execute(&sql)
            .with_context(|| format!("cannot create database {name:?}"))
    }

    /// Removes a database if it is there, ending whatever is connected to it.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(name));
        self.connect("postgres")?
            .batch_execute(&sql)
            .with_context(|| format!("cannot drop database {name:?}"))
    }
}

/// An SQL identifier, quoted.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quote_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
