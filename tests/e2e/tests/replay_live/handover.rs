//! The handover between the history and the stream.

use std::time::{Duration, Instant, SystemTime};

use postgres::Client;
use tailstream_e2e::cursor::store;
use tailstream_e2e::positions::soon_placed;
use tailstream_e2e::{Random, budget};

use crate::account::check;
use crate::client::{Order, Pace};
use crate::crowd::{last_event, pause, work};
use crate::reader::{PACE, Reader};
use crate::{ORG, scene};

/// Some batches, each of an old event and a new one.
fn sow(client: &mut Client, batches: usize) {
    for batch in 0..batches as i64 {
        store(client, ORG, &[("/old", 7_000 - batch), ("/new", 60 - batch)]);
    }
}

#[test]
fn the_history_ends_where_the_stream_begins() {
    let (database, mut sides, writing) = scene("handover");
    // Whoever may read is enough.
    let viewer = database.login_role("viewer", &["tailstream_reader"]);
    let mut source = writing.at(Pace { page_size: 3, quiet: Duration::from_secs(3_600), ..PACE });
    source.sql = database.config(&viewer);
    sow(&mut sides.client, 5);
    sides.settle(&[ORG]);
    let half_an_hour_ago = SystemTime::now() - Duration::from_secs(1_800);
    let mut whole = Reader::open(&source, None);
    let mut half = Reader::open(&source, Some(half_an_hour_ago));
    // Older than all that the second one shows of its history.
    sow(&mut sides.client, 2);
    let last = last_event(&writing);
    for (reader, history) in [(&mut whole, 10), (&mut half, 5)] {
        reader.read_until(last);
        assert_eq!(reader.events(Some(Order::EventTime)).len(), history);
        assert_eq!(reader.events(None).len(), 5);
        assert_eq!(reader.events(Some(Order::Stream)).len(), 0, "nothing was trimmed");
    }
    check(&whole, &mut sides.client);
}

#[test]
fn whatever_commits_meanwhile_comes_once() {
    let random = Random::new("handover");
    let (_database, mut sides, source) = scene("crowd");
    let until = Instant::now() + budget(6.0);
    let mut round = 0;
    while Instant::now() < until || round < 2 {
        let source = source.of(&format!("acme-{round}"));
        let mut random = random.fork(round);
        let readers = work(&source, &random.clone(), |reader, _| reader.step(), || pause(&mut random, 2_500));
        readers.iter().for_each(|reader| check(reader, &mut sides.client));
        let came = |order| readers.iter().map(|reader| reader.events(order).len()).collect::<Vec<_>>();
        println!("round {round}: {:?} in the history, {:?} live", came(Some(Order::EventTime)), came(None));
        round += 1;
    }
}

#[test]
fn what_is_open_at_the_boundary_comes_behind_it() {
    let (database, mut sides, source) = scene("open_end");
    sow(&mut sides.client, 3);
    let mut other = database.connect();
    let mut open = other.transaction().expect("a transaction");
    let held = store(&mut open, ORG, &[("/held", 3_600)]) << 16;
    let committed = sides.ingest(ORG, 2);
    soon_placed(&mut sides.client, committed);
    let mut reader = Reader::open(&source, None);
    reader.read_pages();
    assert!(reader.has(committed << 16) && !reader.has(held));
    open.commit().expect("commit");
    reader.read_until(held);
    reader.read_until(last_event(&source));
    check(&reader, &mut sides.client);
}

#[test]
fn an_org_without_events_is_live_at_once() {
    let (_database, mut sides, source) = scene("quiet_org");
    let mut readers = [Reader::open(&source, None), Reader::open(&source, Some(SystemTime::now()))];
    readers.iter_mut().for_each(Reader::read_pages);
    let first = sides.ingest(ORG, 3) << 16;
    readers.iter_mut().for_each(|reader| reader.read_until(first));
    let last = last_event(&source);
    for reader in &mut readers {
        reader.read_until(last);
        check(reader, &mut sides.client);
    }
}
