//! The server's configuration file, and the socket's place.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::state::State;
use crate::repository::fnv1a;
use crate::server_user::ServerUser;

/// `sun_path` holds 108 bytes, the last of which is a NUL.
const SOCKET_PATH_MAX: usize = 107;
/// The longest name PostgreSQL gives to its socket.
const SOCKET_NAME: &str = ".s.PGSQL.65535";

/// Defaults that each cluster may override.
const DEFAULTS: &[(&str, &str)] = &[
    ("timescaledb.telemetry_level", "off"),
    ("cron.database_name", "postgres"),
    // Each database with TimescaleDB takes a scheduler, and a suite makes a database per test.
    ("max_worker_processes", "64"),
    // A purge or a dump touches every chunk of a hypertable in one transaction.
    ("max_locks_per_transaction", "256"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %d "),
];

/// The configuration file's text. The last value of a setting wins, so the caller's come after the
/// defaults; what keeps the server private comes last.
pub fn render(state: &State) -> String {
    let socket_dir = state.socket_dir.display().to_string();
    let private = [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", state.port.to_string()),
        ("unix_socket_directories", format!("\"{socket_dir}\"")),
        // pg_cron connects to the server like any client, by default to `localhost` and so by a password.
        ("cron.host", socket_dir),
    ];
    let defaults = DEFAULTS.iter().map(|(name, value)| (*name, *value));
    let wanted = state.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let private = private.iter().map(|(name, value)| (*name, value.as_str()));
    defaults.chain(wanted).chain(private).map(|(name, value)| line(name, value)).collect()
}

fn line(name: &str, value: &str) -> String {
    let quoted = value.replace('\\', "\\\\").replace('\'', "''");
    format!("{name} = '{quoted}'\n")
}

/// The socket lives beside the data, unless its path would be too long for the system.
pub fn socket_dir(dir: &Path, user: &ServerUser) -> PathBuf {
    let near = dir.join("socket");
    if fits(&near) {
        return near;
    }
    let short = format!("tailstream-{:016x}", fnv1a(dir.as_os_str().as_bytes()));
    // The caller's runtime directory is closed to everybody else, the server's user included.
    env::var_os("XDG_RUNTIME_DIR")
        .filter(|_| !user.is_other())
        .map(|runtime| PathBuf::from(runtime).join(&short))
        .filter(|socket| fits(socket) && socket.parent().is_some_and(Path::is_dir))
        .unwrap_or_else(|| Path::new("/tmp").join(short))
}

fn fits(socket_dir: &Path) -> bool {
    socket_dir.as_os_str().len() + 1 + SOCKET_NAME.len() <= SOCKET_PATH_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_win_and_values_are_quoted() {
        let text = render(&State {
            port: 5555,
            socket_dir: PathBuf::from("/tmp/it's here"),
            settings: vec![("cron.database_name".to_owned(), "a\\b".to_owned())],
        });
        let position = |needle: &str| text.find(needle).unwrap();
        assert!(position("cron.database_name = 'a\\\\b'") > position("cron.database_name = 'postgres'"));
        assert!(text.contains("unix_socket_directories = '\"/tmp/it''s here\"'"));
        assert!(text.ends_with("cron.host = '/tmp/it''s here'\n"));
    }

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let user = ServerUser::detect().unwrap();
        let long = PathBuf::from(format!("/{}", "x".repeat(100)));
        assert!(fits(&socket_dir(&long, &user)));
        assert_eq!(socket_dir(Path::new("/a"), &user), Path::new("/a/socket"));
    }
}
