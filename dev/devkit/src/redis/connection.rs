//! Connecting to the server.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Client, Connection, InfoDict, TlsCertificates};

use super::Redis;
use crate::process::Process;

const HOST: &str = "127.0.0.1";
/// The server is on this machine: one that takes longer is paused, or none of ours.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one look whether the server is up may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Redis {
    /// Where clients find the server, without its password.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    pub fn url_with_password(&self) -> String {
        match &self.state.wanted.password {
            Some(password) => self.url_with(&format!(":{}@", percent_encode(password))),
            None => self.url(),
        }
    }

    fn url_with(&self, credentials: &str) -> String {
        let scheme = if self.state.wanted.tls { "rediss" } else { "redis" };
        format!("{scheme}://{credentials}{HOST}:{}", self.port())
    }

    /// A connection with the password, if there is one, and trust in the CA. It waits for answers
    /// for ever, unless told otherwise.
    pub fn connect(&self) -> Result<Connection> {
        self.client()?
            .get_connection_with_timeout(CONNECT_TIMEOUT)
            .with_context(|| format!("cannot connect to Redis {} at {}", self.name, self.url()))
    }

    /// The arguments that make `redis-cli` talk to this server.
    pub fn cli_args(&self) -> Vec<String> {
        let port = self.port().to_string();
        let mut arguments = ["-h", HOST, "-p", &port].map(str::to_owned).to_vec();
        if let Some(password) = &self.state.wanted.password {
            arguments.extend(["--no-auth-warning", "-a", password].map(str::to_owned));
        }
        if let Some(ca) = self.ca_file() {
            arguments.extend(["--tls".to_owned(), "--cacert".to_owned(), ca.to_string_lossy().into_owned()]);
        }
        arguments
    }

    fn client(&self) -> Result<Client> {
        let url = self.url_with_password();
        let Some(ca) = self.ca_file() else {
            return Client::open(url).context("cannot make a Redis client");
        };
        // Without a choice rustls panics as soon as features of other crates leave it two. An error
        // says that somebody has chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root_cert = fs::read(&ca).with_context(|| format!("cannot read {}", ca.display()))?;
        Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
            .context("cannot make a Redis client with TLS")
    }

    /// Whether this very process is up and has loaded its data: somebody else's server may have the
    /// port. An error says why not.
    pub(super) fn ping(&self, process: &Process) -> Result<()> {
        let mut connection = self.client()?.get_connection_with_timeout(ANSWER_TIMEOUT)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        redis::cmd("PING").exec(&mut connection)?;
        let info: InfoDict = redis::cmd("INFO").arg("server").query(&mut connection)?;
        let answering: Option<i32> = info.get("process_id");
        anyhow::ensure!(answering == Some(process.pid), "process {answering:?} answers on its port");
        Ok(())
    }
}

/// For the password in a URL, of which every character but the plainest means something there.
fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_hold_anything() {
        assert_eq!(percent_encode("a-Z~9/@: ü%"), "a-Z~9%2F%40%3A%20%C3%BC%25");
    }
}
