//! What can no longer be had is reported.

use tailstream_devkit::event::rfc3339;
use tailstream_e2e::cursor::{Gap, store};
use tailstream_e2e::stream::Entry;
use tailstream_e2e::{Sides, stream};

use crate::account::{check_what_came, missing};
use crate::client::Pace;
use crate::crowd::last_event;
use crate::reader::{PACE, Reader};
use crate::{ORG, scene};

/// Seconds: older than the retention will be, and younger.
const OLD: i64 = 9_000;
const NEW: i64 = 300;
const SHORTER: &str = "SELECT ts_alter_tier('standard', '1 hour')";
const PURGE: &str = "SELECT * FROM ts_apply_retention()";

fn sow(sides: &mut Sides, age: i64, batches: i64) {
    for batch in 0..batches {
        store(&mut sides.client, ORG, &[("/a", age - batch), ("/b", age - batch)]);
    }
}

/// Fails unless every event that did not come is old, and in a gap that was reported for this reason.
#[track_caller]
pub fn check_gaps(reader: &Reader, expected: &[Entry], reason: &str) {
    check_what_came(reader, expected);
    let missing = missing(reader, expected);
    assert!(!missing.is_empty(), "nothing is missing");
    let gaps = reader.gaps();
    assert!(gaps.iter().all(|gap| gap.reason == reason), "{gaps:?}");
    for entry in &missing {
        let covers = |gap: &Gap| {
            gap.from.is_none_or(|from| rfc3339(from) <= entry.time)
                && gap.to.is_none_or(|to| entry.time <= rfc3339(to))
        };
        assert!(gaps.iter().any(covers), "{entry:?} is in none of {gaps:?}");
    }
}

#[test]
fn what_is_hidden_or_purged_before_it_was_reached_is_a_gap() {
    let (_database, mut sides, source) = scene("hidden");
    sow(&mut sides, OLD, 10);
    sow(&mut sides, NEW, 10);
    sides.wait_until_placed();
    let source = source.at(Pace { page_size: 4, ..PACE });
    let mut readers = [(); 3].map(|()| Reader::open(&source, None));
    // The third one has not begun.
    readers[..2].iter_mut().for_each(Reader::step);
    let expected = stream::expected(&mut sides.client, ORG);
    sides.client.batch_execute(SHORTER).expect("a shorter retention");
    readers[0].step();
    sides.client.batch_execute(PURGE).expect("the purge");
    let last = last_event(&source);
    for (reader, old) in readers.iter_mut().zip([4, 4, 0]) {
        reader.read_until(last);
        check_gaps(reader, &expected, "retention");
        assert_eq!(reader.handed.len(), old + reader.gaps().len() + 20 + 1);
    }
}

#[test]
fn what_is_purged_while_a_reader_is_away_is_a_gap() {
    let (_database, mut sides, source) = scene("away");
    sides.client.batch_execute("SELECT ts_alter_tier('standard', stream_entries => 10)").expect("a limit");
    sow(&mut sides, NEW, 3);
    sides.wait_until_placed();
    let mut reader = Reader::open(&source, None);
    reader.read_pages();
    sow(&mut sides, OLD, 5);
    for _ in 0..8 {
        sides.ingest(ORG, 100);
    }
    sides.settle_ends(&[(ORG, 10)]);
    let expected = stream::expected(&mut sides.client, ORG);
    sides.client.batch_execute(SHORTER).expect("a shorter retention");
    sides.client.batch_execute(PURGE).expect("the purge");
    reader.read_until(last_event(&source));
    check_gaps(&reader, &expected, "retention");
    assert_eq!(missing(&reader, &expected).len(), 10);
}

#[test]
fn an_erased_org_is_a_gap_and_what_comes_then_comes_once() {
    let (_database, mut sides, source) = scene("erased");
    sow(&mut sides, NEW, 10);
    sides.settle(&[ORG]);
    let mut amid = Reader::open(&source.at(Pace { page_size: 4, ..PACE }), None);
    let mut live = Reader::open(&source, None);
    amid.step();
    live.read_pages();
    sides.client.batch_execute("SELECT ts_erase_org('acme')").expect("ts_erase_org");
    let anew = sides.ingest(ORG, 5);
    let last = last_event(&source);
    for (reader, before) in [(&mut amid, 4), (&mut live, 20)] {
        reader.read_until(last);
        let expected = &stream::expected(&mut sides.client, ORG);
        assert!(missing(reader, expected).is_empty());
        check_what_came(reader, expected);
        assert!(reader.has(anew << 16));
        assert_eq!(reader.handed.len() - reader.gaps().len(), before + expected.len());
    }
    let reasons: Vec<String> = amid.gaps().into_iter().map(|gap| gap.reason).collect();
    assert_eq!(reasons, ["erased"]);
}
