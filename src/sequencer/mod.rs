//! The sequencer: gives each batch its place in one total order once its transaction has committed.

mod finishing;
mod horizon;
mod ledger;
mod marks;
mod place;
mod position;

use std::time::{Duration, Instant};

use pgrx::{pg_guard, pg_sys};

use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::metrics::counter::{Counter, Timer};
use crate::metrics::shared::{Role, Slot, State};
use crate::pg::time;
use crate::statement::snapshot;
use crate::tier::lookup;
use crate::worker::process;
use crate::worker::report::Reporter;
use crate::worker::transaction::{self, Isolation};
use horizon::Horizon;
use marks::Marks;

pub use horizon::Snapshot;

/// Batches placed by one transaction.
const LIMIT: usize = 2_000;
/// How often it looks without being woken.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a commit takes from when it can be seen to its end.
const MOMENT: Duration = Duration::from_millis(1);
/// How often it looks for chunks to be made ahead, how soon again if one could not be made, and how far ahead. A client that
/// has made a chunk itself and idles in its transaction holds up nobody for as long as that.
const UPKEEP: Duration = Duration::from_secs(10);
const UPKEEP_AGAIN: Duration = Duration::from_secs(1);
const AHEAD: &str = "3 hours";

/// What it knows between looks; read anew after an error.
struct Order {
    positions: pg_sys::Oid,
    horizon: Horizon,
    counter: place::Counter,
    marks: Marks,
    /// Transactions of other databases that were open when this process began. They never write here, and nothing is known of
    /// when they began.
    elsewhere: Vec<u64>,
    /// Since when what the last look before this process began had not seen can have been received: PostgreSQL's microseconds.
    unseen_since: Option<i64>,
}

/// What a look came to.
struct Look {
    placed: usize,
    /// Whose events were placed: the bells of their orgs.
    bells: u64,
    /// There is more.
    stopped: bool,
    /// There will be more in a moment.
    finishing: bool,
}

/// The sequencer's main function.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn tailstream_sequencer_main(argument: pg_sys::Datum) {
    let slot = process::begin(argument);
    process::report_activity(c"giving batches their place");
    let mut reporter = Reporter::new(slot, Role::Sequencer);
    let mut order = None;
    let mut upkeep_at = Instant::now();
    loop {
        if upkeep_at <= Instant::now() {
            upkeep_at = Instant::now() + make_next_chunk();
        }
        let pause = match look(&mut order, slot) {
            Ok(look) => {
                reporter.recovered();
                reporter.succeeded(State::Running);
                if look.placed > 0 {
                    slot.worker(Role::Mirror).wake();
                }
                match look {
                    Look { stopped: true, placed: 1.., .. } => None,
                    _ if upkeep_at <= Instant::now() => None,
                    Look { finishing: true, .. } => Some(MOMENT),
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

/// Places what is new, and writes that down in the same transaction.
fn look(order: &mut Option<Order>, slot: &Slot) -> Result<Look> {
    let began = Instant::now();
    // A failed transaction must leave nothing behind here either.
    let mut next = order.take();
    // The time first: whoever gets an id later sees it.
    let began_at = slot.progress.look_at(time::now());
    // SAFETY: reads shared memory.
    let next_xid = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    let look = transaction::run(Isolation::RepeatableRead, || {
        let positions = lookup::positions()?;
        // ts_erase_org() takes a lock that waits for this one and makes this one wait; the snapshot comes after it.
        // SAFETY: a lock as any INSERT takes it.
        unsafe { pg_sys::LockRelationOid(positions, pg_sys::RowExclusiveLock as i32) };
        snapshot::current(|| {
            let known = next.take().filter(|order: &Order| order.positions == positions);
            let mut order = match known {
                Some(order) => order,
                None => ledger::load(positions)?,
            };
            order.marks.add(next_xid, began_at);
            let look = place_new(&mut order)?;
            order.marks.forget_before(order.horizon.first_unseen());
            next = Some(order);
            Ok(look)
        })
    })?;
    *order = next;
    if let Some(order) = order {
        slot.progress.set_placed_seq(order.counter.seq - 1);
    }
    slot.ring(look.bells);
    slot.count(Counter::SequencerLooks, 1);
    if look.placed > 0 {
        slot.count(Counter::SequencerBatches, look.placed as u64);
        slot.histogram(Timer::SequencerLook).observe(began.elapsed());
    }
    failpoint("sequencer-committed");
    Ok(look)
}

/// One chunk in a transaction of its own, so that places wait for no more. Returns when to look again. Whatever keeps it from
/// that is in the way of others too: it is no failure.
fn make_next_chunk() -> Duration {
    let made = transaction::run(Isolation::ReadCommitted, || {
        lookup::positions()?;
        snapshot::current(|| ledger::make_next_chunk(AHEAD))
    });
    match made {
        Ok(true) => Duration::ZERO,
        Ok(false) => UPKEEP,
        Err(Error::StorageMissing) => UPKEEP_AGAIN,
        Err(error) => {
            pgrx::debug1!("tailstream sequencer: a chunk was not made ahead: {error}");
            UPKEEP_AGAIN
        }
    }
}

fn place_new(order: &mut Order) -> Result<Look> {
    let now = ledger::present()?.with(&order.elsewhere);
    let finishing = finishing::among_new(order.horizon.seen(), &now)?;
    let now = now.without(&finishing);
    let (rows, complete) = order.horizon.look(&now, LIMIT, &mut ledger::Reader { marks: &order.marks })?;
    if !rows.is_empty() {
        failpoint("sequencer-found");
        order.counter.advance(time::now() / 1_000);
        ledger::place(&rows, order)?;
        failpoint("sequencer-placed");
    }
    let bells = rows.iter().fold(0, |bells, batch| bells | 1 << Slot::bell_of(batch.org()));
    Ok(Look { placed: rows.len(), bells, stopped: !complete, finishing: !finishing.is_empty() })
}
