//! A shorter retention that was made longer again: what was purged in between is lost, and is told once.

use crate::ledger::{Past, count_gaps};
use crate::page::{Direction, Request, Row};

/// From each row it goes on with the rest, and no row's token tells again what was told before it.
#[track_caller]
fn check_resumption(past: &mut Past, request: &Request<'_>, rows: &[Row]) {
    for (number, row) in rows.iter().enumerate() {
        let rest = request.after(row).page(&mut past.client);
        assert_eq!(past.ages(&rest), past.ages(&rows[number + 1..]), "behind {row:?}");
        assert_eq!(count_gaps(&rest), count_gaps(&rows[number + 1..]), "behind {row:?}: {rest:?}");
    }
}

#[test]
fn what_was_purged_stays_lost_when_more_is_kept_again() {
    let mut past = Past::new(crate::placed_database("regained"));
    past.store("acme", &[&[300], &[240], &[180], &[30], &[10]]);
    past.settle();
    let forward = Request::of("acme", Direction::Forward);
    let oldest = forward.size(1).page(&mut past.client).remove(0);
    let backward = Request { start: Some(past.at(310)), ..Request::of("acme", Direction::Backward) };
    let newest = backward.size(1).page(&mut past.client).remove(0);
    past.keep("1 hour");
    past.purge();
    past.keep("20 days");
    for size in [1, 2, 100] {
        let rows = forward.after(&oldest).size(size).all_pages(&mut past.client);
        assert_eq!((count_gaps(&rows), past.ages(&rows)), (1, vec![30, 10]), "by {size}");
        past.check_gap(&rows[0], (240, 180), (300, 30));
        check_resumption(&mut past, &forward, &rows);
        let rows = backward.after(&newest).size(size).all_pages(&mut past.client);
        assert_eq!((count_gaps(&rows), past.ages(&rows)), (1, vec![30]), "backward by {size}");
        past.check_gap(&rows[1], (240, 180), (310, 30));
        check_resumption(&mut past, &backward, &rows);
    }
    past.store("acme", &[&[5]]);
    let latest = forward.page(&mut past.client);
    let rest = forward.after(&latest[latest.len() - 2]).page(&mut past.client);
    assert_eq!((count_gaps(&rest), past.ages(&rest)), (0, vec![5]), "who is behind it hears nothing of it");
}

#[test]
fn what_survived_in_another_tier_comes_with_the_gap() {
    let mut past = Past::new(crate::placed_database("survivors"));
    past.client.batch_execute("SELECT ts_create_tier('steady', '20 days')").expect("a tier");
    past.store("acme", &[&[300], &[240]]);
    past.store_under("steady", "acme", &[&[200]]);
    past.store("acme", &[&[30], &[10]]);
    past.settle();
    let forward = Request::of("acme", Direction::Forward);
    let oldest = forward.size(1).page(&mut past.client).remove(0);
    let backward = Request { start: Some(past.at(310)), ..Request::of("acme", Direction::Backward) };
    let newest = backward.size(1).page(&mut past.client).remove(0);
    past.keep("1 hour");
    past.purge();
    past.keep("20 days");
    for size in [1, 2, 100] {
        let rows = forward.after(&oldest).size(size).all_pages(&mut past.client);
        assert_eq!((count_gaps(&rows), past.ages(&rows)), (1, vec![200, 30, 10]), "by {size}");
        past.check_gap(&rows[0], (240, 240), (300, 30));
        check_resumption(&mut past, &forward, &rows);
        let rows = backward.after(&newest).size(size).all_pages(&mut past.client);
        assert_eq!((count_gaps(&rows), past.ages(&rows)), (1, vec![30, 200]), "backward by {size}");
        check_resumption(&mut past, &backward, &rows);
    }
}

#[test]
fn a_downgrade_that_was_undone_hides_nothing() {
    let mut past = Past::new(crate::placed_database("undone"));
    for direction in Direction::BOTH {
        let org = direction.name();
        past.store(org, &[&[300], &[240], &[50], &[10]]);
        past.settle();
        let request = Request { start: Some(past.at(310)), ..Request::of(org, direction) };
        let before = request.page(&mut past.client);
        past.set_tier(org, "narrow");
        past.set_tier(org, "wide");
        // Nobody looked whether anything was purged meanwhile: it may be told as possible, once.
        for size in [1, 2, 100] {
            let rows = request.after(&before[0]).size(size).all_pages(&mut past.client);
            assert!(count_gaps(&rows) <= 1, "{org} by {size}: {rows:?}");
            assert_eq!(past.ages(&rows), past.ages(&before[1..]), "{org} by {size}");
            check_resumption(&mut past, &request, &rows);
        }
    }
}
