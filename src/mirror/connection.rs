//! The connection to Redis, which runs in its own thread.
//!
//! The mirror's process must always react to PostgreSQL: a DROP DATABASE in another session, a reload, a shutdown. It
//! therefore passes each blocking request to this thread, one at a time. The thread makes no calls of PostgreSQL, and
//! wakes the process when the response is available. A thread that hangs ends with the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use super::commands::Commands;
use redis::{Client, IntoConnectionInfo, TlsCertificates, Value};

/// The address of Redis, and the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub url: String,
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

impl Target {
    /// The target that the settings describe; `None` without a URL.
    pub fn from_settings() -> Option<Self> {
        use crate::settings;
        let url = settings::redis_url();
        (!url.is_empty()).then(|| Self {
            url,
            password_file: settings::redis_password_file(),
            ca_file: settings::redis_ca_file(),
            timeout: settings::redis_timeout(),
        })
    }

    /// Connects to Redis. Error messages do not contain the URL, because it may contain a password.
    pub fn connect(&self) -> Result<redis::Connection, String> {
        let mut info = self
            .url
            .as_str()
            .into_connection_info()
            .map_err(|_| "tailstream.redis_url is not a URL of Redis".to_owned())?;
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let password = text.lines().next().unwrap_or_default();
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let client = if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
            // This fails if a provider is installed already. That is harmless, because it is the same one.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let root_cert = match &self.ca_file {
                None => None,
                Some(path) => Some(
                    std::fs::read(path)
                        .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
                ),
            };
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        } else {
            Client::open(info)
        };
        let connection = client.and_then(|client| {
            let connection = client.get_connection_with_timeout(self.timeout)?;
            connection.set_read_timeout(Some(self.timeout))?;
            connection.set_write_timeout(Some(self.timeout))?;
            Ok(connection)
        });
        connection.map_err(|error| describe(&error))
    }
}

/// The message for an error.
pub fn describe(error: &redis::RedisError) -> String {
    if error.is_timeout() {
        return "no answer within tailstream.redis_timeout".to_owned();
    }
    error.to_string()
}

enum Request {
    Connect(Target),
    Run(Commands),
}

/// The replies to a request. After an error, the connection is closed.
pub type Response = Result<Vec<Value>, String>;

/// The handle of the connection's thread.
pub struct Connection {
    requests: Sender<Request>,
    responses: Receiver<Response>,
    busy: bool,
}

impl Connection {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (requests, incoming) = channel();
        let (outgoing, responses) = channel();
        without_signals(|| {
            std::thread::Builder::new().name("redis".into()).spawn(move || serve(&incoming, &outgoing))
        })?;
        Ok(Self { requests, responses, busy: false })
    }

    /// Whether a response is outstanding.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Closes the present connection, if there is one, and opens a new one. The response has no replies.
    pub fn connect(&mut self, target: Target) {
        self.request(Request::Connect(target));
    }

    /// Sends commands. The response has one reply for each command.
    pub fn run(&mut self, commands: Commands) {
        self.request(Request::Run(commands));
    }

    fn request(&mut self, request: Request) {
        // If the thread has ended, `response` reports it.
        let _ = self.requests.send(request);
        self.busy = true;
    }

    /// The response to the last request; `None` if there is none yet.
    pub fn response(&mut self) -> Option<Response> {
        if !self.busy {
            return None;
        }
        let response = match self.responses.try_recv() {
            Ok(response) => response,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("the connection's thread ended".to_owned()),
        };
        self.busy = false;
        Some(response)
    }
}

fn serve(requests: &Receiver<Request>, responses: &Sender<Response>) {
    let mut connection = None;
    while let Ok(request) = requests.recv() {
        let response = catch_unwind(AssertUnwindSafe(|| handle(&mut connection, request)));
        let response = response.unwrap_or_else(|_| Err("internal error in the connection".to_owned()));
        if response.is_err() {
            connection = None;
        }
        if responses.send(response).is_err() {
            return;
        }
        // PostgreSQL's handler of SIGUSR1 sets the latch of the process.
        // SAFETY: the process signals itself, and this thread has blocked all signals.
        unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
    }
}

fn handle(connection: &mut Option<redis::Connection>, request: Request) -> Response {
    match request {
        Request::Connect(target) => {
            // The old connection is closed first, because Redis may permit only one.
            *connection = None;
            *connection = Some(target.connect()?);
            Ok(Vec::new())
        }
        Request::Run(commands) => {
            let connection = connection.as_mut().ok_or("not connected")?;
            let replies = commands.count();
            // The client's own function for pipelines would wait for the timeout once for each reply if the server
            // hangs.
            let response = connection.send_packed_command(&commands.into_bytes());
            response
                .and_then(|()| (0..replies).map(|_| connection.recv_response()).collect())
                .map_err(|error| describe(&error))
        }
    }
}

/// Starts a thread that receives no signals, because PostgreSQL's handlers must run in the main thread.
fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: sets the signal mask of this thread, which the new thread inherits, and restores it.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        started
    }
}
