//! The mirror's course: connect, see where Redis stands, send, and see again.
//!
//! One order is under way at a time. While Redis works on a part the next one is read and made ready.

mod desired_config;
mod epoch_reset;
mod maintenance;
mod resume;
mod resync;
mod send;
mod suspect;

use std::collections::{HashMap, HashSet};
use std::mem::{Discriminant, discriminant};
use std::ops::Range;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use redis::Value;

use self::desired_config::DesiredConfig;
use self::epoch_reset::EpochReset;
use self::suspect::Suspect;
use super::checkpoint::Checkpoint;
use super::commands::Commands;
use super::connection::{Answer, Connection};
use super::key::OwnKeys;
use super::orgs::Orgs;
use super::position::{EventPosition, ReadPosition};
use super::redis_transaction::RedisTransaction;
use super::replies;
use super::resync::Resyncs;
use super::server::{self, Limits};
use super::state::{LastEntry, ResyncRequest};
use crate::error::{Error, Result};
use crate::metrics::counter::Counter;
use crate::metrics::shared::{Slot, State};
use crate::pg::time;

/// How often Redis is asked whether it is what it was while there is nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How soon it is suspicious that somebody touches the mirror's own keys again.
const OVERTAKEN_AGAIN: Duration = Duration::from_secs(5);

/// What a step came to.
pub struct StepResult {
    pub state: State,
    /// Something was achieved since the last failure.
    pub settled: bool,
    /// What failed last has worked.
    pub recovered: bool,
    /// How long to wait unless woken; `None` for as long as usual.
    pub pause: Option<Duration>,
}

/// What the next answer is the answer to.
enum Awaited {
    Connection,
    /// What the server is, and how much it takes.
    Server,
    /// Whether the checkpoint is what it should be.
    Checkpoint,
    /// Whether the last entries sent are there.
    Tail(Vec<LastEntry>),
    /// A transaction of a reset.
    Reset(EpochReset, RedisTransaction),
    /// Some of the streams that a registry lists.
    Registered(EpochReset),
    /// What is under the keys of streams that are to go.
    Kinds(EpochReset),
    Transaction(Box<UnderWay>),
    /// What is under the key of a stream to be made again.
    Kind(ResyncRequest),
    /// Trimming of streams: those behind this org.
    Sweep(RedisTransaction, Checkpoint, String),
    Heartbeat,
}

impl Awaited {
    /// Tells steps apart that may fail by themselves.
    fn kind(&self) -> (Discriminant<Self>, bool) {
        let is_resync = matches!(self, Self::Transaction(under_way) if under_way.resync.is_some());
        (discriminant(self), is_resync)
    }
}

/// A part that Redis was given.
struct UnderWay {
    transaction: RedisTransaction,
    checkpoint: Checkpoint,
    since: Instant,
    resent: bool,
    resync: Option<ResyncRequest>,
    /// It is the last part of its resync, which has this number.
    resync_number: Option<i64>,
}

pub struct Replicator {
    slot: &'static Slot,
    connection: Connection,
    desired: Option<DesiredConfig>,
    connected: bool,
    awaited: Option<Awaited>,
    /// No attempt before.
    retry_at: Option<Instant>,
    keys: OwnKeys,
    limits: Limits,
    /// What Redis holds; `None` until that is known.
    checkpoint: Option<Checkpoint>,
    after_seq: i64,
    /// The table that positions are read from.
    positions: pg_sys::Oid,
    orgs: Orgs,
    resyncs: Resyncs,
    read_position: ReadPosition,
    ready: Option<RedisTransaction>,
    /// There may be something to read.
    more: bool,
    /// Everything before was made ready once: what is sent again is before it.
    furthest: EventPosition,
    orders: u32,
    sweep: Option<String>,
    /// Orgs whose streams cannot be trimmed: Redis refuses that for their keys' own reason.
    untrimmed: HashSet<String>,
    sweep_at: Instant,
    heartbeat_at: Instant,
    /// Requests that were read from the tables.
    requests: u32,
    /// Redis has taken something since the last failure.
    proven: bool,
    settled: bool,
    recovered: bool,
    /// The step that failed last, until it has worked.
    failed: Option<(Discriminant<Awaited>, bool)>,
    /// An epoch that was begun here and not in Redis yet.
    new_epoch: Option<Checkpoint>,
    /// Numbers for the next resyncs. They are reserved anew with each connection: what was given to Redis on another one
    /// may come back from there, and must not be taken for what has the number now.
    resync_numbers: Range<i64>,
    suspect: Option<Suspect>,
    /// Of each org the id of the last event that was left out because it is too large.
    left_out: HashMap<String, String>,
    /// When somebody else last touched what is this mirror's own.
    overtaken_at: Option<Instant>,
    /// It is noted in the table that the mirror is switched off.
    pause_noted: bool,
}

impl Replicator {
    pub fn new(slot: &'static Slot) -> std::io::Result<Self> {
        let now = Instant::now();
        // SAFETY: reads the control file's copy in shared memory, and one variable.
        let (system, database) = unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId) };
        Ok(Self {
            slot,
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
            furthest: EventPosition::default(),
            orders: 0,
            sweep: None,
            untrimmed: HashSet::new(),
            sweep_at: now,
            heartbeat_at: now,
            requests: 0,
            proven: false,
            settled: false,
            recovered: false,
            failed: None,
            new_epoch: None,
            resync_numbers: 0..0,
            suspect: None,
            left_out: HashMap::new(),
            overtaken_at: None,
            pause_noted: false,
        })
    }

    /// Does what there is to do now, short of waiting.
    pub fn step(&mut self) -> Result<StepResult> {
        (self.settled, self.recovered) = (false, false);
        let waiting = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(pause) = waiting.filter(|pause| !pause.is_zero()) {
            return Ok(self.step_result(Some(pause)));
        }
        self.retry_at = None;
        let desired = self.heed_settings()?;
        if self.connection.is_busy() {
            let Some(answer) = self.connection.answer() else {
                self.make_ready()?;
                return Ok(self.step_result(None));
            };
            let awaited = self.awaited.take();
            if desired.is_none() || desired != self.desired {
                // An answer to what nobody wants to know any more.
                self.disconnect();
                return Ok(self.step_result(Some(Duration::ZERO)));
            }
            self.heard(awaited, answer)?;
        } else if desired != self.desired {
            self.disconnect();
            self.desired = desired;
            self.new_epoch = None;
        }
        if self.desired.is_none() {
            return Ok(StepResult { state: State::Off, settled: true, recovered: true, pause: None });
        }
        if self.connection.is_busy() {
            return Ok(self.step_result(Some(Duration::ZERO)));
        }
        let now = Instant::now();
        let pause = self.next_order(now)?;
        Ok(self.step_result(pause))
    }

    fn step_result(&self, pause: Option<Duration>) -> StepResult {
        let state = if self.checkpoint.is_some() { State::Running } else { State::Connecting };
        StepResult { state, settled: self.settled, recovered: self.recovered, pause }
    }

    /// Takes an answer to what was awaited, if that still is.
    fn heard(&mut self, awaited: Option<Awaited>, answer: Answer) -> Result<()> {
        let Some(awaited) = awaited else { return Ok(()) };
        let kind = awaited.kind();
        let is_empty =
            matches!(&awaited, Awaited::Transaction(under_way) if under_way.transaction.entries == 0);
        let result = match (answer, awaited) {
            (Ok(replies), awaited) => self.answered(awaited, replies),
            (Err(message), Awaited::Transaction(under_way)) => {
                Err(self.transaction_failed(&under_way, message)?)
            }
            (Err(message), _) => Err(Error::Redis(message)),
        };
        if result.is_err() {
            self.failed = Some(kind);
        } else if is_empty && self.suspect.is_some() {
            // A checkpoint alone says nothing of the events that failed.
            self.settled = false;
        } else if self.failed == Some(kind) {
            self.failed = None;
            self.recovered = true;
        }
        result
    }

    /// Waits that long before the next attempt, and then asks Redis again where it stands.
    pub fn failed(&mut self, pause: Duration) {
        self.slot.count(Counter::MirrorRetries, 1);
        self.retry_at = Some(Instant::now() + pause);
        self.proven = false;
        // Whoever refused may be the wrong one by now: a name in the URL is looked up again.
        self.disconnect();
    }

    /// The configuration was read again: what failed before may work now.
    pub fn reloaded(&mut self) {
        self.retry_at = None;
    }

    /// The extension is gone.
    pub fn forget(&mut self) {
        self.disconnect();
        self.desired = None;
    }

    /// From here on Redis has to be asked where it stands. An answer that is still to come is an answer to nothing: what
    /// it says was true of another connection, and what was made ready behind it is gone.
    fn disconnect(&mut self) {
        self.connected = false;
        self.awaited = None;
        self.untrimmed.clear();
        self.slot.progress.set_connected_since(0);
        self.forget_checkpoint();
    }

    fn forget_checkpoint(&mut self) {
        self.checkpoint = None;
        self.ready = None;
        self.orgs.forget();
        self.resyncs.restart();
        self.resync_numbers = 0..0;
    }

    /// Redis does not hold the checkpoint that this mirror wrote, or somebody touched it or the registry: it has to be asked
    /// where it stands. If that happens again and again, not without pauses.
    fn overtaken(&mut self) -> Result<()> {
        self.forget_checkpoint();
        let now = Instant::now();
        let before = self.overtaken_at.replace(now);
        if before.is_some_and(|before| now - before < OVERTAKEN_AGAIN) {
            return Err(Error::Redis("somebody else writes to the mirror's own keys".into()));
        }
        Ok(())
    }

    /// Gives the next order, if there is anything to do. Returns how long to wait if not.
    fn next_order(&mut self, now: Instant) -> Result<Option<Duration>> {
        let Some(desired) = &self.desired else { return Ok(None) };
        if !self.connected {
            self.connection.connect(desired.target.clone());
            self.awaited = Some(Awaited::Connection);
            return Ok(None);
        }
        let Some(checkpoint) = &self.checkpoint else {
            let mut commands = Commands::default();
            // A watch that was touched stays so until it is taken back.
            commands
                .command(&["UNWATCH"])
                .command(&["WATCH", &self.keys.checkpoint, &self.keys.registry])
                .command(&["GET", &self.keys.checkpoint])
                .command(&["HGET", &self.keys.registry, ""]);
            self.ask(Awaited::Checkpoint, commands);
            return Ok(None);
        };
        if self.suspect.is_some() && !self.proven {
            // Nobody's events are to blame where nothing can be written at all.
            let here = ReadPosition { next: checkpoint.position, ..ReadPosition::default() };
            self.send(RedisTransaction::ending_at(here), None, None);
            return Ok(None);
        }
        // However much there is to send, streams to be made again and streams to be trimmed have their turn.
        self.orders = self.orders.wrapping_add(1);
        let resync_first = self.orders.is_multiple_of(2);
        if resync_first && self.continue_resync(now)? {
            return Ok(None);
        }
        if self.orders.is_multiple_of(32) && self.sweep_at <= now && self.order_sweep()? {
            return Ok(None);
        }
        self.make_ready()?;
        if let Some(transaction) = self.ready.take_if(|transaction| !transaction.is_empty()) {
            self.send(transaction, None, None);
            // The next one is made ready while this one is on its way.
            return Ok(Some(Duration::ZERO));
        }
        if !resync_first && self.continue_resync(now)? {
            return Ok(None);
        }
        if self.sweep_at <= now && self.order_sweep()? {
            return Ok(None);
        }
        if self.heartbeat_at <= now {
            self.order_heartbeat(now);
            return Ok(None);
        }
        if self.more {
            return Ok(Some(Duration::ZERO));
        }
        let next = self.heartbeat_at.min(self.sweep_at).saturating_duration_since(now);
        Ok(Some(self.resyncs.next_due(now).map_or(next, |due| due.min(next)).max(Duration::from_millis(1))))
    }

    /// Sends commands that write nothing, or that may be lost.
    fn ask(&mut self, awaited: Awaited, commands: Commands) {
        self.connection.run(commands);
        self.awaited = Some(awaited);
    }

    fn answered(&mut self, awaited: Awaited, replies: Vec<Value>) -> Result<()> {
        match awaited {
            Awaited::Connection => {
                self.ask(Awaited::Server, server::questions());
                Ok(())
            }
            Awaited::Server => {
                self.limits = server::read(&replies)?;
                self.connected = true;
                self.slot.progress.set_connected_since(time::to_postgres_time(time::now()));
                Ok(())
            }
            Awaited::Checkpoint => self.compare(&replies),
            Awaited::Tail(expected) => self.check_tail(&expected, &replies),
            Awaited::Transaction(under_way) => self.transaction_answered(*under_way, &replies),
            Awaited::Kind(request) => self.resync_kind_known(request, &replies),
            Awaited::Reset(reset, transaction) => self.reset_written(reset, &transaction, &replies),
            Awaited::Registered(reset) => self.streams_registered(reset, &replies),
            Awaited::Kinds(reset) => self.clear_streams(reset, &replies),
            Awaited::Sweep(transaction, checkpoint, after) => {
                self.swept(&transaction, &replies, checkpoint, after)
            }
            Awaited::Heartbeat => {
                let held = replies.first().and_then(replies::text);
                if held == self.checkpoint.as_ref().map(Checkpoint::to_string) {
                    self.settled = true;
                    return Ok(());
                }
                self.overtaken()
            }
        }
    }
}
