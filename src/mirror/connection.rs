//! The connection to Redis, in a thread of its own.
//!
//! The process itself must always answer PostgreSQL: a DROP DATABASE elsewhere, a reload, a shutdown. So it
//! hands what may block to a thread that knows nothing of PostgreSQL, one order at a time, and is woken when the
//! answer is there. A thread that hangs ends with the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use super::commands::Commands;
use redis::{Client, IntoConnectionInfo, TlsCertificates, Value};

/// Where Redis is and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub url: String,
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

impl Target {
    /// What the settings say; `None` without a URL.
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

    /// Connects. No error names the URL: it may hold a password.
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
            // The first one to come counts; all are the same.
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

/// What went wrong, in words.
pub fn describe(error: &redis::RedisError) -> String {
    if error.is_timeout() {
        return "no answer within tailstream.redis_timeout".to_owned();
    }
    error.to_string()
}

enum Order {
    Connect(Target),
    Run(Commands),
}

/// The replies, or why there are none: then the connection is gone.
pub type Answer = Result<Vec<Value>, String>;

/// The thread, as the process sees it.
pub struct Connection {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
    busy: bool,
}

impl Connection {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (orders, taken) = channel();
        let (given, answers) = channel();
        without_signals(|| {
            std::thread::Builder::new().name("redis".into()).spawn(move || serve(&taken, &given))
        })?;
        Ok(Self { orders, answers, busy: false })
    }

    /// Whether an answer is to come.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Drops the connection there may be and makes a new one; the answer is empty.
    pub fn connect(&mut self, target: Target) {
        self.order(Order::Connect(target));
    }

    /// Sends commands and waits for their replies.
    pub fn run(&mut self, commands: Commands) {
        self.order(Order::Run(commands));
    }

    fn order(&mut self, order: Order) {
        // A thread that is gone shows when its answer is asked for.
        let _ = self.orders.send(order);
        self.busy = true;
    }

    /// The answer to the last order, if it is there.
    pub fn answer(&mut self) -> Option<Answer> {
        if !self.busy {
            return None;
        }
        let answer = match self.answers.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("the connection's thread ended".to_owned()),
        };
        self.busy = false;
        Some(answer)
    }
}

fn serve(orders: &Receiver<Order>, answers: &Sender<Answer>) {
    let mut connection = None;
    while let Ok(order) = orders.recv() {
        let answer = catch_unwind(AssertUnwindSafe(|| obey(&mut connection, order)));
        let answer = answer.unwrap_or_else(|_| Err("internal error in the connection".to_owned()));
        if answer.is_err() {
            connection = None;
        }
        if answers.send(answer).is_err() {
            return;
        }
        // The process's handler for it sets its latch.
        // SAFETY: a signal to the own process; this thread takes none.
        unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
    }
}

fn obey(connection: &mut Option<redis::Connection>, order: Order) -> Answer {
    match order {
        Order::Connect(target) => {
            // The old one goes first: Redis may allow just one.
            *connection = None;
            *connection = Some(target.connect()?);
            Ok(Vec::new())
        }
        Order::Run(commands) => {
            let connection = connection.as_mut().ok_or("not connected")?;
            let replies = commands.count();
            // The client's own call for pipelines would wait for every single reply of a server that hangs.
            let answer = connection.send_packed_command(&commands.into_bytes());
            answer
                .and_then(|()| (0..replies).map(|_| connection.recv_response()).collect())
                .map_err(|error| describe(&error))
        }
    }
}

/// Starts a thread that no signal reaches: PostgreSQL's handlers belong to the main one.
fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: sets the mask of this thread, which the new one inherits, and sets it back.
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
