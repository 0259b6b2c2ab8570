//! The sequencer: assigns each batch its position in one total order after its transaction has committed.

mod committing;
mod ledger;
mod position;
mod receipt_bounds;
mod sequence;
mod snapshot_tracker;

use std::time::{Duration, Instant};

use pgrx::{pg_guard, pg_sys};

use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::pg::snapshot;
use crate::pg::time;
use crate::shmem::counter::{Counter, Timer};
use crate::shmem::{DatabaseState, Role, State};
use crate::tier::lookup;
use crate::worker::process;
use crate::worker::status::Reporter;
use crate::worker::transaction::{self, Isolation};
use receipt_bounds::ReceiptBounds;
use snapshot_tracker::SnapshotTracker;

pub use snapshot_tracker::Snapshot;

/// Most batches that one transaction assigns positions to.
const LIMIT: usize = 2_000;
/// How often the sequencer polls without being woken.
const INTERVAL: Duration = Duration::from_secs(1);

/// How soon to poll again after a poll found a committing transaction: about the time from visibility to the end of a commit.
const COMMITTING_INTERVAL: Duration = Duration::from_millis(1);
/// How often the sequencer checks for chunks to create ahead of time, how soon it retries if it could not create one, and
/// how far ahead it creates them. For that long, a client that creates a chunk itself and then idles in its transaction
/// blocks no other session.
const CHUNK_INTERVAL: Duration = Duration::from_secs(10);
const CHUNK_RETRY_INTERVAL: Duration = Duration::from_secs(1);
const AHEAD: &str = "3 hours";

/// State kept between polls; loaded again after an error.
struct Order {
    positions: pg_sys::Oid,
    tracker: SnapshotTracker,
    counter: sequence::Counter,
    bounds: ReceiptBounds,
    /// Transactions of other databases that were open when this process started. They never write to this database, and
    /// their start time is not known.
    foreign_xids: Vec<u64>,
    /// The earliest receive time of rows that the last poll before this process started had not seen: PostgreSQL's
    /// microseconds.
    unpolled_since: Option<i64>,
}

/// The result of a poll.
struct Poll {
    sequenced: usize,
    /// Bit mask of the orgs whose events were sequenced, by notification channel.
    notifiers: u64,
    /// More rows are ready.
    stopped: bool,
    /// More rows follow shortly: some transactions are committing.
    committing: bool,
}

/// The sequencer's main function.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn tailstream_sequencer_main(argument: pg_sys::Datum) {
    let shared = process::begin(argument);
    process::report_activity(c"assigning positions to batches");
    let mut reporter = Reporter::new(shared, Role::Sequencer);
    let mut order = None;
    let mut next_chunk_at = Instant::now();
    loop {
        if next_chunk_at <= Instant::now() {
            next_chunk_at = Instant::now() + make_next_chunk();
        }
        let pause = match poll(&mut order, shared) {
            Ok(poll) => {
                reporter.recovered();
                reporter.succeeded(State::Running);
                if poll.sequenced > 0 {
                    shared.worker(Role::Mirror).wake();
                }
                match poll {
                    Poll { stopped: true, sequenced: 1.., .. } => None,
                    _ if next_chunk_at <= Instant::now() => None,
                    Poll { committing: true, .. } => Some(COMMITTING_INTERVAL),
                    _ => Some(INTERVAL),
                }
            }
            Err(Error::StorageMissing) => {
                order = None;
                reporter.recovered();
                reporter.succeeded(State::Off);
                Some(INTERVAL)
            }
            Err(error) => {
                order = None;
                Some(reporter.failed(&error.to_string()))
            }
        };
        match pause {
            Some(pause) => process::wait(pause),
            None => process::serve_interrupts(),
        };
    }
}

/// Assigns positions to new batches, and stores the tracker's state in the same transaction.
fn poll(order: &mut Option<Order>, shared: &DatabaseState) -> Result<Poll> {
    let began = Instant::now();
    // A failed transaction must not leave changes in memory either.
    let mut next = order.take();
    // Publish the time before reading the next id: a transaction that gets its id later sees this time.
    let began_at = shared.progress.begin_poll(time::now());
    // SAFETY: reads shared memory.
    let next_xid = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    let poll = transaction::run(Isolation::RepeatableRead, || {
        let positions = lookup::positions()?;
        // ts_erase_org() takes a lock that conflicts with this one. The snapshot must be taken after this lock.
        // SAFETY: a lock as any INSERT takes it.
        unsafe { pg_sys::LockRelationOid(positions, pg_sys::RowExclusiveLock as i32) };
        snapshot::current(|| {
            let known = next.take().filter(|order: &Order| order.positions == positions);
            let mut order = match known {
                Some(order) => order,
                None => ledger::load(positions)?,
            };
            order.bounds.add(next_xid, began_at);
            let poll = sequence_new(&mut order)?;
            order.bounds.forget_before(order.tracker.first_unseen());
            next = Some(order);
            Ok(poll)
        })
    })?;
    *order = next;
    if let Some(order) = order {
        shared.progress.set_last_seq(order.counter.seq - 1);
    }
    shared.notify(poll.notifiers);
    shared.count(Counter::SequencerPolls, 1);
    if poll.sequenced > 0 {
        shared.count(Counter::SequencerBatches, poll.sequenced as u64);
        shared.histogram(Timer::SequencerPoll).observe(began.elapsed());
    }
    failpoint("sequencer-committed");
    Ok(poll)
}

/// Creates one chunk in a transaction of its own, so that sequencing is not delayed by more than one. Returns when to check
/// again. An error here is not reported as a failure of the worker: its cause blocks other sessions too.
fn make_next_chunk() -> Duration {
    let made = transaction::run(Isolation::ReadCommitted, || {
        lookup::positions()?;
        snapshot::current(|| ledger::make_next_chunk(AHEAD))
    });
    match made {
        Ok(true) => Duration::ZERO,
        Ok(false) => CHUNK_INTERVAL,
        Err(Error::StorageMissing) => CHUNK_RETRY_INTERVAL,
        Err(error) => {
            pgrx::debug1!("tailstream sequencer: a chunk was not made ahead: {error}");
            CHUNK_RETRY_INTERVAL
        }
    }
}

fn sequence_new(order: &mut Order) -> Result<Poll> {
    let now = ledger::present()?.with(&order.foreign_xids);
    let committing = committing::among_new(order.tracker.seen(), &now)?;
    let now = now.without(&committing);
    let (rows, complete) = order.tracker.poll(&now, LIMIT, &mut ledger::Reader { bounds: &order.bounds })?;
    if !rows.is_empty() {
        failpoint("sequencer-found");
        order.counter.advance(time::now() / 1_000);
        ledger::store_positions(&rows, order)?;
        failpoint("sequencer-placed");
    }
    let notifiers =
        rows.iter().fold(0, |notifiers, batch| notifiers | 1 << DatabaseState::notifier_number(batch.org()));
    Ok(Poll { sequenced: rows.len(), notifiers, stopped: !complete, committing: !committing.is_empty() })
}
