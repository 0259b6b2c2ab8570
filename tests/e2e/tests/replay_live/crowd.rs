//! Producers and readers at once.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};
use tailstream_devkit::event::now_micros;
use tailstream_e2e::bookkeeping::batch;
use tailstream_e2e::database::ingest;
use tailstream_e2e::mirror::some_events;
use tailstream_e2e::{Random, eventually};

use crate::reader::{PATIENCE, Reader, Source};

const PRODUCERS: u64 = 3;
const READERS: u64 = 2;
/// Within the retention, and older than what a reader may have seen.
const LATE: i64 = 7_200_000_000;
/// There will be no last event.
const FAILED: i64 = -1;

/// Has producers and readers at work as long as `meanwhile` takes, and the readers until they have everything.
pub fn work(
    source: &Source,
    random: &Random,
    reading: impl Fn(&mut Reader, &mut Random) + Sync,
    meanwhile: impl FnOnce(),
) -> Vec<Reader> {
    let (producing, last) = (AtomicBool::new(true), AtomicI64::new(0));
    thread::scope(|scope| {
        let _stop = Stop { producing: &producing, last: &last };
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                let (producing, random) = (&producing, random.fork(number));
                scope.spawn(move || produce(source, random, producing))
            })
            .collect();
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (random, reading, last) = (random.fork(100 + number), &reading, &last);
                scope.spawn(move || read(source, random, reading, last))
            })
            .collect();
        meanwhile();
        producing.store(false, Ordering::Relaxed);
        producers.into_iter().for_each(|producer| producer.join().expect("a producer"));
        last.store(last_event(source), Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    })
}

/// Ends the producers, and if the test fails the readers as well.
struct Stop<'a> {
    producing: &'a AtomicBool,
    last: &'a AtomicI64,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.producing.store(false, Ordering::Relaxed);
        if thread::panicking() {
            self.last.store(FAILED, Ordering::Relaxed);
        }
    }
}

fn read(
    source: &Source,
    mut random: Random,
    reading: impl Fn(&mut Reader, &mut Random),
    last: &AtomicI64,
) -> Reader {
    pause(&mut random, 700);
    let mut reader = Reader::open(source, None);
    let mut ending = None;
    loop {
        let last = last.load(Ordering::Relaxed);
        if last != 0 {
            if last == FAILED || reader.has(last) {
                return reader;
            }
            let since: &Instant = ending.get_or_insert_with(Instant::now);
            assert!(since.elapsed() < PATIENCE, "event {last} does not come");
        }
        reading(&mut reader, &mut random);
    }
}

/// Stores one more event, behind all others.
pub fn last_event(source: &Source) -> i64 {
    let (mut sent, json) = (None, some_events(1));
    eventually("the last event to be stored", PATIENCE, || {
        let mut client = source.sql.connect(NoTls).ok()?;
        // A commit whose answer was lost is found by its key.
        let key = sent.get_or_insert_with(|| format!("last of {}", now_micros())).clone();
        ingest(&mut client, &source.org, &json, Some(&key)).ok().map(|done| done.batch_id << 16)
    })
}

fn produce(source: &Source, mut random: Random, producing: &AtomicBool) {
    let mut client = None;
    while producing.load(Ordering::Relaxed) {
        let Some(connected) = &mut client else {
            client = connect(&source.sql);
            continue;
        };
        if let Err(error) = transaction(connected, &source.org, &mut random) {
            let retry = ["40P01", "40001", "55P03", "57P01", "57P02", "57P03", "XX000"];
            let known = error.code().is_none_or(|code| retry.contains(&code.code()));
            assert!(known, "{error:?}");
            client = None;
        }
        pause(&mut random, 20);
    }
}

fn connect(config: &Config) -> Option<Client> {
    let client = config.connect(NoTls).ok();
    if client.is_none() {
        // Not a synchronisation: a server that is down is not asked without pause.
        thread::sleep(Duration::from_millis(20));
    }
    client
}

/// One transaction of some batches, with late events, committed at once, later or not at all.
fn transaction(client: &mut Client, org: &str, random: &mut Random) -> Result<(), postgres::Error> {
    let mut transaction = client.transaction()?;
    for _ in 0..=random.below(3) {
        let size = [1, 1, 2, 10, 40, 300][random.below(6)];
        let age = |random: &mut Random| if random.chance(30) { random.between(0, LATE) } else { 0 };
        let ages: Vec<i64> = (0..size).map(|event| event + age(random)).collect();
        let json = batch(random.between(0, 1_000_000_000), now_micros(), &ages);
        let mut part = transaction.savepoint("part")?;
        ingest(&mut part, org, &json, None)?;
        if random.chance(10) {
            part.rollback()?;
        } else {
            part.commit()?;
        }
    }
    if random.chance(20) {
        pause(random, 300);
    }
    if random.chance(15) { transaction.rollback() } else { transaction.commit() }
}

/// Not a synchronisation: what happens next shall come at any moment.
pub fn pause(random: &mut Random, most: i64) {
    thread::sleep(Duration::from_millis(random.between(0, most) as u64));
}
