//! The main loop of the mirror: connects, compares the checkpoint, sends, and checks the checkpoint again.
//!
//! One request is in flight at a time. While Redis works on a transaction, the next one is read.

mod awaited;
mod desired_config;
mod epoch_reset;
mod maintenance;
mod resume;
mod resync;
mod send;
mod suspect;

use std::collections::{HashMap, HashSet};
use std::mem::Discriminant;
use std::ops::Range;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use redis::Value;

use self::awaited::{Awaited, InFlight};
use self::desired_config::DesiredConfig;
use self::suspect::Suspect;
use super::checkpoint::Checkpoint;
use super::commands::Commands;
use super::connection::{Connection, Response};
use super::key::OwnKeys;
use super::orgs::Orgs;
use super::position::{EventPosition, ReadPosition};
use super::redis_transaction::RedisTransaction;
use super::replies;
use super::resync::Resyncs;
use super::server::{self, Limits};
use crate::error::{Error, Result};
use crate::pg::time;
use crate::shmem::counter::Counter;
use crate::shmem::{DatabaseState, State};

/// While there is nothing to send, the checkpoint in Redis is checked at this interval.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// If another client changes the mirror's own keys twice within this time, the mirror reports an error and pauses.
const OVERTAKEN_AGAIN: Duration = Duration::from_secs(5);

/// The result of one step.
pub struct StepResult {
    pub state: State,
    /// A request has succeeded since the last failure.
    pub succeeded: bool,
    /// The step that failed last has succeeded.
    pub recovered: bool,
    /// The pause before the next step, unless the mirror is woken; `None` for the usual interval.
    pub pause: Option<Duration>,
}

pub struct Replicator {
    shared: &'static DatabaseState,
    connection: Connection,
    desired: Option<DesiredConfig>,
    connected: bool,
    awaited: Option<Awaited>,
    /// No attempt is made before this time.
    retry_at: Option<Instant>,
    keys: OwnKeys,
    limits: Limits,
    /// The checkpoint that Redis holds; `None` while it is not known.
    checkpoint: Option<Checkpoint>,
    after_seq: i64,
    /// The table that positions are read from.
    positions: pg_sys::Oid,
    orgs: Orgs,
    resyncs: Resyncs,
    read_position: ReadPosition,
    ready: Option<RedisTransaction>,
    /// There may be more to read.
    more: bool,
    /// Everything before this position was sent once; if it is sent again, it counts as resent.
    furthest_sent: EventPosition,
    rounds: u32,
    trim_after: Option<String>,
    /// Orgs whose streams cannot be trimmed, because Redis refuses access to the key.
    untrimmable: HashSet<String>,
    trim_at: Instant,
    heartbeat_at: Instant,
    /// The counter of requests for resyncs when they were last read from the table.
    requests_seen: u32,
    /// Redis has executed a write since the last failure.
    write_succeeded: bool,
    succeeded: bool,
    recovered: bool,
    /// The step that failed last, until it succeeds.
    failed: Option<(Discriminant<Awaited>, bool)>,
    /// An epoch that was begun in the table and is not in Redis yet.
    new_epoch: Option<Checkpoint>,
    /// Reserved numbers for the next resyncs. New numbers are reserved for each connection: a number that was sent on
    /// an earlier connection may still arrive in Redis, and must not be mistaken for that of another resync.
    resync_numbers: Range<i64>,
    suspect: Option<Suspect>,
    /// For each org, the stream id of the last event that was left out because it is too large.
    last_oversized: HashMap<String, String>,
    /// The last time at which another client changed the mirror's own keys.
    overtaken_at: Option<Instant>,
    /// The table records that the mirror is switched off.
    pause_noted: bool,
}

impl Replicator {
    pub fn new(shared: &'static DatabaseState) -> std::io::Result<Self> {
        let now = Instant::now();
        // SAFETY: reads shared memory (the copy of the control file) and a variable.
        let (system, database) = unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId) };
        Ok(Self {
            shared,
            connection: Connection::start()?,
            desired: None,
            connected: false,
            awaited: None,
            retry_at: None,
            keys: OwnKeys::new(system, database.to_u32()),
            limits: Limits::default(),
            checkpoint: None,
            after_seq: 0,
            positions: pg_sys::InvalidOid,
            orgs: Orgs::default(),
            resyncs: Resyncs::default(),
            read_position: ReadPosition::default(),
            ready: None,
            more: true,
            furthest_sent: EventPosition::default(),
            rounds: 0,
            trim_after: None,
            untrimmable: HashSet::new(),
            trim_at: now,
            heartbeat_at: now,
            requests_seen: 0,
            write_succeeded: false,
            succeeded: false,
            recovered: false,
            failed: None,
            new_epoch: None,
            resync_numbers: 0..0,
            suspect: None,
            last_oversized: HashMap::new(),
            overtaken_at: None,
            pause_noted: false,
        })
    }

    /// Does the work that is possible now, without waiting.
    pub fn step(&mut self) -> Result<StepResult> {
        (self.succeeded, self.recovered) = (false, false);
        let waiting = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(pause) = waiting.filter(|pause| !pause.is_zero()) {
            return Ok(self.step_result(Some(pause)));
        }
        self.retry_at = None;
        let desired = self.read_settings()?;
        if self.connection.is_busy() {
            let Some(response) = self.connection.response() else {
                self.read_next()?;
                return Ok(self.step_result(None));
            };
            let awaited = self.awaited.take();
            if desired.is_none() || desired != self.desired {
                // The configuration has changed, so the response is of no use.
                self.disconnect();
                return Ok(self.step_result(Some(Duration::ZERO)));
            }
            self.handle_response(awaited, response)?;
        } else if desired != self.desired {
            self.disconnect();
            self.desired = desired;
            self.new_epoch = None;
        }
        if self.desired.is_none() {
            return Ok(StepResult { state: State::Off, succeeded: true, recovered: true, pause: None });
        }
        if self.connection.is_busy() {
            return Ok(self.step_result(Some(Duration::ZERO)));
        }
        let now = Instant::now();
        let pause = self.send_next_request(now)?;
        Ok(self.step_result(pause))
    }

    fn step_result(&self, pause: Option<Duration>) -> StepResult {
        let state = if self.checkpoint.is_some() { State::Running } else { State::Connecting };
        StepResult { state, succeeded: self.succeeded, recovered: self.recovered, pause }
    }

    /// Handles the response to the awaited request. The response is ignored if nothing is awaited any more.
    fn handle_response(&mut self, awaited: Option<Awaited>, response: Response) -> Result<()> {
        let Some(awaited) = awaited else { return Ok(()) };
        let kind = awaited.kind();
        let is_empty =
            matches!(&awaited, Awaited::Transaction(in_flight) if in_flight.transaction.entries == 0);
        let result = match (response, awaited) {
            (Ok(replies), awaited) => self.handle_replies(awaited, replies),
            (Err(message), Awaited::Transaction(in_flight)) => {
                Err(self.transaction_failed(&in_flight, message)?)
            }
            (Err(message), _) => Err(Error::Redis(message)),
        };
        if result.is_err() {
            self.failed = Some(kind);
        } else if is_empty && self.suspect.is_some() {
            // A transaction without entries does not show that the events that failed can be written.
            self.succeeded = false;
        } else if self.failed == Some(kind) {
            self.failed = None;
            self.recovered = true;
        }
        result
    }

    /// Disconnects, and waits for `pause` before the next attempt.
    pub fn failed(&mut self, pause: Duration) {
        self.shared.count(Counter::MirrorRetries, 1);
        self.retry_at = Some(Instant::now() + pause);
        self.write_succeeded = false;
        // The server that refused may no longer be the right one. A new connection resolves the host name again.
        self.disconnect();
    }

    /// Retries at once, because the configuration was read again and may have fixed the cause of a failure.
    pub fn reloaded(&mut self) {
        self.retry_at = None;
    }

    /// Disconnects, because the extension was dropped.
    pub fn forget(&mut self) {
        self.disconnect();
        self.desired = None;
    }

    /// Marks the state of Redis as unknown. A response that is still outstanding will be ignored, because it belongs to
    /// the old connection. The transaction that was read in the meantime is discarded too.
    fn disconnect(&mut self) {
        self.connected = false;
        self.awaited = None;
        self.untrimmable.clear();
        self.shared.progress.set_connected_since(0);
        self.forget_checkpoint();
    }

    fn forget_checkpoint(&mut self) {
        self.checkpoint = None;
        self.ready = None;
        self.orgs.forget();
        self.resyncs.restart();
        self.resync_numbers = 0..0;
    }

    /// Reads the checkpoint again, because another client has changed it or the registry. Fails, and so causes a pause,
    /// if this happens repeatedly.
    fn overtaken(&mut self) -> Result<()> {
        self.forget_checkpoint();
        let now = Instant::now();
        let before = self.overtaken_at.replace(now);
        if before.is_some_and(|before| now - before < OVERTAKEN_AGAIN) {
            return Err(Error::Redis("another client writes to the mirror's own keys".into()));
        }
        Ok(())
    }

    /// Sends the next request, if there is anything to do. Returns the time to wait otherwise.
    fn send_next_request(&mut self, now: Instant) -> Result<Option<Duration>> {
        let Some(desired) = &self.desired else { return Ok(None) };
        if !self.connected {
            self.connection.connect(desired.target.clone());
            self.awaited = Some(Awaited::Connection);
            return Ok(None);
        }
        let Some(checkpoint) = &self.checkpoint else {
            let mut commands = Commands::default();
            // If a watched key was changed, EXEC fails until the watch is removed.
            commands
                .command(&["UNWATCH"])
                .command(&["WATCH", &self.keys.checkpoint, &self.keys.registry])
                .command(&["GET", &self.keys.checkpoint])
                .command(&["HGET", &self.keys.registry, ""]);
            self.query(Awaited::Checkpoint, commands);
            return Ok(None);
        };
        if self.suspect.is_some() && !self.write_succeeded {
            // First checks that anything can be written at all. If not, the events are not the cause of the failure.
            let here = ReadPosition { next: checkpoint.position, ..ReadPosition::default() };
            self.send(RedisTransaction::ending_at(here), None, None);
            return Ok(None);
        }
        // Resyncs and trimming get a share of the requests even if there is always something to send.
        self.rounds = self.rounds.wrapping_add(1);
        let resync_first = self.rounds.is_multiple_of(2);
        if resync_first && self.continue_resync(now)? {
            return Ok(None);
        }
        if self.rounds.is_multiple_of(32) && self.trim_at <= now && self.trim_streams()? {
            return Ok(None);
        }
        self.read_next()?;
        if let Some(transaction) = self.ready.take_if(|transaction| !transaction.is_empty()) {
            self.send(transaction, None, None);
            // The next transaction is read while this one is in flight.
            return Ok(Some(Duration::ZERO));
        }
        if !resync_first && self.continue_resync(now)? {
            return Ok(None);
        }
        if self.trim_at <= now && self.trim_streams()? {
            return Ok(None);
        }
        if self.heartbeat_at <= now {
            self.send_heartbeat(now);
            return Ok(None);
        }
        if self.more {
            return Ok(Some(Duration::ZERO));
        }
        let next = self.heartbeat_at.min(self.trim_at).saturating_duration_since(now);
        Ok(Some(self.resyncs.next_due(now).map_or(next, |due| due.min(next)).max(Duration::from_millis(1))))
    }

    /// Sends commands that change nothing, so that it does no harm if they are lost.
    fn query(&mut self, awaited: Awaited, commands: Commands) {
        self.connection.run(commands);
        self.awaited = Some(awaited);
    }

    fn handle_replies(&mut self, awaited: Awaited, replies: Vec<Value>) -> Result<()> {
        match awaited {
            Awaited::Connection => {
                self.query(Awaited::Server, server::limit_queries());
                Ok(())
            }
            Awaited::Server => {
                self.limits = server::read_limits(&replies)?;
                self.connected = true;
                self.shared.progress.set_connected_since(time::to_postgres_time(time::now()));
                Ok(())
            }
            Awaited::Checkpoint => self.compare_checkpoint(&replies),
            Awaited::Tail(expected) => self.check_tail(&expected, &replies),
            Awaited::Transaction(in_flight) => self.transaction_answered(*in_flight, &replies),
            Awaited::KeyType(request) => self.start_resync(request, &replies),
            Awaited::Reset(reset, transaction) => self.reset_written(reset, &transaction, &replies),
            Awaited::Registered(reset) => self.registry_page_read(reset, &replies),
            Awaited::KeyTypes(reset) => self.remove_streams(reset, &replies),
            Awaited::Trim(transaction, checkpoint, after) => {
                self.streams_trimmed(&transaction, &replies, checkpoint, after)
            }
            Awaited::Heartbeat => {
                let held = replies.first().and_then(replies::text);
                if held == self.checkpoint.as_ref().map(Checkpoint::to_string) {
                    self.succeeded = true;
                    return Ok(());
                }
                self.overtaken()
            }
        }
    }
}
