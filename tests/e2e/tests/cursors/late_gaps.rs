//! Gaps are exact where old events came late, between new ones or together with them.

use tailstream_e2e::cursor::{fetched, labels};

use crate::{OLD, create, database, shorten, store_placed};

const GAP: &str = "gap retention";

/// Readers by name, how many events each has consumed before the purge, and what each gets after it.
type Readers = [(&'static str, usize, &'static [&'static str])];

/// Makes the cursors of an org and moves each on.
fn begin(client: &mut postgres::Client, org: &str, order: &str, readers: &Readers) {
    for (name, consumed, _) in readers {
        create(client, &format!("'{name}', '{org}', order_by => '{order}'"));
        if *consumed > 0 {
            let rows = fetched(client, &format!("'{name}', {consumed}, auto_ack => true"));
            assert_eq!(rows.len(), *consumed, "{name}");
        }
    }
}

#[track_caller]
fn check(client: &mut postgres::Client, readers: &Readers) {
    for (name, _, expected) in readers {
        let all = labels(&fetched(client, &format!("'{name}'")));
        assert_eq!(all, *expected, "{name}");
        // The same in the smallest steps, with an ack of each.
        let mut seen = Vec::new();
        loop {
            let rows = fetched(client, &format!("'{name}', 1, auto_ack => true"));
            if rows.is_empty() {
                break;
            }
            seen.extend(labels(&rows));
            assert!(seen.len() <= expected.len(), "{name}: {seen:?}");
        }
        assert_eq!(seen, *expected, "{name} in steps");
    }
}

#[test]
fn gaps_by_arrival_stand_where_something_was_lost() {
    const READERS: &Readers = &[
        ("all", 0, &[GAP, "b", GAP, "d"]),
        ("behind a", 1, &["b", GAP, "d"]),
        ("behind b", 2, &[GAP, "d"]),
        ("behind c", 3, &["d"]),
        ("behind d", 4, &[]),
    ];
    let database = database("late");
    let mut client = database.connect();
    for event in [("a", OLD), ("b", 30), ("c", OLD - 60), ("d", 10)] {
        store_placed(&mut client, "acme", &[event]);
        store_placed(&mut client, "other", &[("other", OLD)]);
    }
    begin(&mut client, "acme", "arrival", READERS);
    shorten(&mut client);
    check(&mut client, READERS);
}

#[test]
fn gaps_by_time_stand_before_what_is_left() {
    const READERS: &Readers = &[
        ("all", 0, &[GAP, "b", "d"]),
        ("between", 1, &[GAP, "b", "d"]),
        ("behind both", 2, &["b", "d"]),
        ("behind b", 3, &["d"]),
    ];
    let database = database("late_by_time");
    let mut client = database.connect();
    for event in [("a", OLD), ("b", 30), ("c", OLD - 60), ("d", 10)] {
        store_placed(&mut client, "acme", &[event]);
        store_placed(&mut client, "other", &[("other", OLD - 30)]);
    }
    begin(&mut client, "acme", "event_time", READERS);
    // Earlier than the second reader's position and later than it: what is earlier it would never have seen.
    create(&mut client, "'early', 'late', order_by => 'event_time'");
    create(&mut client, "'soon', 'soon', order_by => 'event_time'");
    for (name, late) in [("late", OLD + 60), ("soon", OLD - 60)] {
        store_placed(&mut client, name, &[("first", OLD)]);
        let cursor = if name == "late" { "early" } else { "soon" };
        assert_eq!(fetched(&mut client, &format!("'{cursor}', auto_ack => true")).len(), 1);
        store_placed(&mut client, name, &[("late", late)]);
    }
    shorten(&mut client);
    check(&mut client, READERS);
    for org in ["late", "soon"] {
        store_placed(&mut client, org, &[("new", 0)]);
    }
    assert_eq!(labels(&fetched(&mut client, "'early'")), ["new"], "what was lost lay before its position");
    assert_eq!(labels(&fetched(&mut client, "'soon'")), [GAP, "new"]);
}

#[test]
fn a_batch_that_was_lost_in_part_has_its_gap_and_the_rest() {
    let database = database("partly");
    let mut client = database.connect();
    let batches: [&[(&str, i64)]; 4] = [
        &[("old", OLD), ("new", 40)],
        &[("new", 30), ("old", OLD)],
        &[("old", OLD), ("new", 20), ("old", OLD - 1), ("new", 10)],
        &[("new", 4), ("new", 2)],
    ];
    for (number, events) in batches.iter().enumerate() {
        store_placed(&mut client, &format!("org-{number}"), events);
        for consumed in 0..=events.len() {
            create(&mut client, &format!("'{number} {consumed}', 'org-{number}'"));
            if consumed > 0 {
                fetched(&mut client, &format!("'{number} {consumed}', {consumed}, auto_ack => true"));
            }
        }
    }
    shorten(&mut client);
    for (number, events) in batches.iter().enumerate() {
        for consumed in 0..=events.len() {
            let rows = labels(&fetched(&mut client, &format!("'{number} {consumed}', auto_ack => true")));
            let rest = &events[consumed..];
            let new = rest.iter().filter(|(path, _)| *path == "new").count();
            let lost = rest.len() - new;
            let (gaps, others): (Vec<_>, Vec<_>) = rows.iter().partition(|label| *label == GAP);
            assert_eq!(others, vec!["new"; new], "{number} {consumed}: {rows:?}");
            // Where in a batch its gap stands is not said, nor whether two are told as one.
            assert!((lost.min(1)..=lost).contains(&gaps.len()), "{number} {consumed}: {rows:?}");
            assert_eq!(fetched(&mut client, &format!("'{number} {consumed}'")), [], "{number} {consumed}");
        }
    }
}
