//! The server's configuration file.

use std::path::Path;

use super::certificates::Certificates;
use super::state::State;

/// Defaults that each server may override.
const DEFAULTS: &[(&str, &str)] = &[
    ("save", ""),
    ("appendonly", "no"),
    // A replica's first copy would wait 5 s for others to join in.
    ("repl-diskless-sync-delay", "0"),
];

/// The configuration file's text. The last value of a directive wins, so the caller's come after the
/// defaults; what keeps the server private, and lets it be found again, comes last.
pub fn render(state: &State, dir: &Path, data_dir: &Path) -> String {
    let wanted = &state.wanted;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name} {value}\n"));
    for (name, value) in DEFAULTS {
        line(name, non_empty(value));
    }
    if wanted.append_only {
        line("appendonly", "yes");
    }
    for (name, value) in &wanted.settings {
        line(name, non_empty(value));
    }
    if let Some(password) = &wanted.password {
        line("requirepass", &quote(password));
    }
    line("bind", "127.0.0.1");
    line("dir", &quote_path(data_dir));
    line("daemonize", "no");
    line("supervised", "no");
    line("pidfile", "\"\"");
    line("logfile", "\"\"");
    // The command line stays as we made it: its process is recognised by that.
    line("set-proc-title", "no");

    let (port, tls_port) = if wanted.tls { (0, state.port) } else { (state.port, 0) };
    line("port", &port.to_string());
    line("tls-port", &tls_port.to_string());
    if wanted.needs_certificates() {
        let own = Certificates::in_dir(dir);
        let primary_ca = wanted.primary.as_ref().and_then(|primary| primary.ca.as_ref());
        line("tls-cert-file", &quote_path(&own.certificate));
        line("tls-key-file", &quote_path(&own.key));
        line("tls-ca-cert-file", &quote_path(primary_ca.unwrap_or(&own.ca)));
        line("tls-auth-clients", "no");
    }
    if let Some(primary) = &wanted.primary {
        line("tls-replication", if primary.ca.is_some() { "yes" } else { "no" });
        line("replicaof", &format!("127.0.0.1 {}", primary.port));
        if let Some(password) = &primary.password {
            line("masterauth", &quote(password));
        }
    }
    text
}

fn non_empty(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}

fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::super::state::{Primary, Wanted};
    use super::*;

    fn rendered(wanted: Wanted) -> String {
        let state = State { port: 5555, wanted };
        render(&state, Path::new("/tmp/it \"is\" here"), Path::new("/tmp/data"))
    }

    #[test]
    fn later_settings_win_and_values_are_quoted() {
        let text = rendered(Wanted {
            settings: vec![("save".to_owned(), "60 1".to_owned()), ("bind".to_owned(), "*".to_owned())],
            password: Some("a\\b\"c d".to_owned()),
            ..Wanted::default()
        });
        let position = |needle: &str| text.find(needle).unwrap();
        assert!(position("save 60 1\n") > position("save \"\"\n"));
        assert!(position("bind 127.0.0.1\n") > position("bind *\n"));
        assert!(text.contains("requirepass \"a\\\\b\\\"c d\"\n"));
        assert!(text.contains("port 5555\ntls-port 0\n"));
    }

    #[test]
    fn a_replica_trusts_its_primary() {
        let primary = Primary { port: 7, password: Some("p".to_owned()), ca: Some("/ca".into()) };
        let text = rendered(Wanted { tls: true, primary: Some(primary), ..Wanted::default() });
        assert!(
            text.contains("port 0\ntls-port 5555\ntls-cert-file \"/tmp/it \\\"is\\\" here/server.crt\"\n")
        );
        assert!(text.contains("tls-ca-cert-file \"/ca\"\n"));
        assert!(text.ends_with("tls-replication yes\nreplicaof 127.0.0.1 7\nmasterauth \"p\"\n"));
    }
}
