//! Writers that continue whatever happens to the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::{Client, Config, NoTls};
use tailstream_devkit::event::now_micros;
use tailstream_e2e::Random;
use tailstream_e2e::bookkeeping::batch;
use tailstream_e2e::database::ingest;

use crate::scene::{ORGS, is_gone};

pub fn write(config: &Config, mut random: Random, writing: &AtomicBool) {
    let mut client = None;
    while writing.load(Ordering::Relaxed) {
        let Some(connected) = &mut client else {
            client = config.connect(NoTls).ok();
            // This pause does not synchronise: it limits the attempts to connect to a server that is down.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        if let Err(error) = transaction(connected, &mut random) {
            let busy = ["40P01", "40001", "55P03"];
            let retry = error.code().is_some_and(|code| busy.contains(&code.code()));
            assert!(retry || is_gone(&error), "{error:?}");
            client = None;
        }
        thread::sleep(Duration::from_millis(random.between(0, 15) as u64));
    }
}

/// One transaction with some batches, which is committed, rolled back, or rolled back in part.
fn transaction(client: &mut Client, random: &mut Random) -> Result<(), postgres::Error> {
    let mut transaction = client.transaction()?;
    for _ in 0..=random.below(3) {
        let org = random.pick(&ORGS);
        let size = [1, 1, 2, 10, 40, 300][random.below(6)];
        // The old events of this org are purged when the retention of its tier is lowered.
        let old = if org == "aged" { 9_000_000_000 } else { 0 };
        let ages: Vec<i64> =
            (0..size).map(|event| if random.chance(30) { old + event } else { event }).collect();
        let json = batch(random.between(0, 1_000_000_000), now_micros(), &ages);
        let mut part = transaction.savepoint("part")?;
        ingest(&mut part, org, &json, None)?;
        if random.chance(15) {
            part.rollback()?;
        } else {
            part.commit()?;
        }
    }
    if random.chance(15) { transaction.rollback() } else { transaction.commit() }
}
