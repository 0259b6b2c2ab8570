//! Streams that are trimmed before they are read.

use std::time::{Duration, Instant};

use tailstream_e2e::mirror::PATIENCE;
use tailstream_e2e::{Random, Sides, budget, eventually};

use crate::account::check;
use crate::client::{Order, Pace};
use crate::crowd::{last_event, pause, work};
use crate::reader::{PACE, Reader};
use crate::{ORG, scene};

/// Nothing but what is in Redis says that something is missing.
const NEVER_QUIET: Pace = Pace { quiet: Duration::from_secs(3_600), ..PACE };

fn give_few_entries(sides: &mut Sides, org: &str) {
    let sql = format!(
        "SELECT ts_create_tier('few', '3 hours', 10) WHERE NOT EXISTS (SELECT FROM tailstream.tiers WHERE name = 'few');
         SELECT ts_set_org_tier('{org}', 'few')"
    );
    sides.client.batch_execute(&sql).expect("a tier with a short stream");
}

#[test]
fn a_reader_that_is_overtaken_gets_the_rest_from_the_database() {
    let (_database, mut sides, source) = scene("small");
    let source = source.at(NEVER_QUIET);
    give_few_entries(&mut sides, ORG);
    sides.ingest(ORG, 5);
    let (mut live, mut amid) = (Reader::open(&source, None), Reader::open(&source.at(by_threes()), None));
    live.read_pages();
    amid.step();
    for _ in 0..8 {
        sides.ingest(ORG, 250);
    }
    sides.settle_ends(&[(ORG, 10)]);
    let last = last_event(&source);
    for reader in [&mut live, &mut amid] {
        reader.read_until(last);
        check(reader, &mut sides.client);
        let again = reader.events(Some(Order::Stream)).len();
        assert!(again >= 2_000, "{again} events came from the database");
    }
}

fn by_threes() -> Pace {
    Pace { page_size: 3, ..NEVER_QUIET }
}

#[test]
fn slow_readers_are_overtaken_again_and_again() {
    let random = Random::new("overtaken");
    let (_database, mut sides, source) = scene("limited");
    let slow = Pace { entries: 20, page_size: 400, ..NEVER_QUIET };
    let until = Instant::now() + budget(6.0);
    let (mut round, mut overtaken) = (0, 0);
    while Instant::now() < until || round < 2 {
        let source = source.of(&format!("acme-{round}")).at(slow);
        give_few_entries(&mut sides, &source.org);
        let mut random = random.fork(round);
        let reading = |reader: &mut Reader, random: &mut Random| {
            reader.step();
            pause(random, 30);
        };
        let readers = work(&source, &random.clone(), reading, || pause(&mut random, 2_500));
        readers.iter().for_each(|reader| check(reader, &mut sides.client));
        overtaken += readers.iter().filter(|reader| !reader.events(Some(Order::Stream)).is_empty()).count();
        round += 1;
    }
    assert!(overtaken > 0, "no reader was slow enough");
}

#[test]
fn a_stream_that_aged_to_nothing_has_lost_nothing() {
    let (_database, mut sides, source) = scene("aged");
    let source = source.at(NEVER_QUIET);
    sides
        .client
        .batch_execute("SELECT ts_create_tier('brief', '1 hour'); SELECT ts_set_org_tier('acme', 'brief')")
        .expect("a tier");
    sides.ingest(ORG, 300);
    // What has no position yet when the reader opens comes by the stream.
    sides.wait_until_placed();
    let mut reader = Reader::open(&source, None);
    reader.read_pages();
    let missed = sides.ingest(ORG, 300) << 16 | 299;
    sides.settle(&[ORG]);
    // A change of tiers has every stream trimmed at once.
    eventually("the entries to go", PATIENCE, || {
        sides
            .client
            .batch_execute("SELECT ts_alter_tier('brief', stream_age => '1 second')")
            .expect("a limit");
        (sides.length(ORG) == 0).then_some(())
    });
    reader.read_until(missed);
    assert_eq!(reader.events(Some(Order::Stream)).len(), 300, "the id of the last one is still known");
    sides.client.batch_execute("SELECT ts_alter_tier('brief', stream_age => '1 hour')").expect("a limit");
    for _ in 0..3 {
        sides.ingest(ORG, 2);
        reader.read_until(last_event(&source));
    }
    check(&reader, &mut sides.client);
}
