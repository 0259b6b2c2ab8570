//! Gaps where events are gone for good, and where nobody knows any longer whether there were any.

use postgres::Client;
use tailstream_e2e::database::one;

use crate::ledger::{Past, count_gaps};
use crate::page::{Direction, Request};
use crate::schedule::Schedule;

#[test]
fn without_positions_what_is_lost_is_a_gap() {
    let mut past = Past::new(crate::database("unplaced"));
    past.store("acme", &[&[300], &[240], &[50], &[10]]);
    past.store("quiet", &[&[300], &[50], &[10]]);
    past.settle();
    let request = Request::of("acme", Direction::Forward);
    let rows = request.page(&mut past.client);
    past.set_tier("acme", "narrow");
    let page = request.after(&rows[0]).page(&mut past.client);
    past.check_gap(&page[0], (240, 240), (300, 50));
    assert_eq!((count_gaps(&page), past.ages(&page)), (1, vec![50, 10]));
    let inside = request.after(&rows[2]).page(&mut past.client);
    assert_eq!((count_gaps(&inside), past.ages(&inside)), (0, vec![10]), "a position that is shown");

    // The ledger may know that nothing is lost, and need not.
    let request = Request::of("quiet", Direction::Forward);
    let rows = request.page(&mut past.client);
    past.set_tier("quiet", "narrow");
    let page = request.after(&rows[0]).page(&mut past.client);
    assert_eq!(past.ages(&page), [50, 10]);
    assert!(count_gaps(&page) <= 1, "{page:?}");
}

#[test]
fn events_that_no_ledger_knows_may_have_been_lost() {
    let mut past = Past::new(crate::database("unknown"));
    past.set_tier("acme", "wide");
    let sql = format!(
        "INSERT INTO tailstream.events (id, created_at, org_id, tier)
         SELECT n, 'epoch'::timestamptz + at * interval '1 microsecond', 'acme', 1
         FROM unnest('{{{}, {}, {}}}'::bigint[]) WITH ORDINALITY u(at, n)",
        past.at(300),
        past.at(240),
        past.at(30)
    );
    past.client.batch_execute(&sql).expect("events");
    let request = Request { start: Some(past.at(310)), ..Request::of("acme", Direction::Forward) };
    let oldest = request.page(&mut past.client).remove(0);
    past.set_tier("acme", "narrow");
    let page = request.after(&oldest).page(&mut past.client);
    past.check_gap(&page[0], (240, 240), (300, 30));
    assert_eq!((count_gaps(&page), past.ages(&page)), (1, vec![30]));
}

#[test]
fn purged_events_are_a_gap() {
    let mut past = Past::new(crate::placed_database("purged"));
    past.store("acme", &[&[300], &[240], &[180], &[30], &[10]]);
    past.settle();
    let request = Request::of("acme", Direction::Forward);
    let oldest = request.size(1).page(&mut past.client).remove(0);
    past.keep("1 hour");
    past.purge();
    let page = request.after(&oldest).page(&mut past.client);
    past.check_gap(&page[0], (240, 180), (300, 30));
    assert_eq!((count_gaps(&page), past.ages(&page)), (1, vec![30, 10]));
}

/// The ledger is purged, too: then nobody can tell that nothing was lost.
fn check_forgotten(mut past: Past) {
    const DAY: i64 = 24 * 60;
    past.store("acme", &[&[15 * DAY], &[30]]);
    past.settle();
    let request = Request { start: Some(past.at(15 * DAY + 10)), ..Request::of("acme", Direction::Forward) };
    let oldest = request.page(&mut past.client).remove(0);
    past.keep("1 hour");
    past.purge();
    for table in ["positions", "batches"] {
        let known =
            format!("SELECT count(*) FROM tailstream.{table} WHERE last_event_at < now() - interval '1 day'");
        assert_eq!(one::<i64>(&mut past.client, &known), 0, "{table} still know");
    }
    let page = request.after(&oldest).page(&mut past.client);
    past.check_gap(&page[0], (14 * DAY, 60), (15 * DAY, 30));
    assert_eq!((count_gaps(&page), past.ages(&page)), (1, vec![30]));
}

#[test]
fn what_the_ledger_has_forgotten_may_have_been_lost() {
    check_forgotten(Past::new(crate::placed_database("forgotten")));
}

#[test]
fn what_the_ledger_has_forgotten_may_have_been_lost_without_positions() {
    check_forgotten(Past::new(crate::database("forgotten_unplaced")));
}

fn erase(client: &mut Client, org: &str) {
    client.execute("SELECT ts_erase_org($1)", &[&org]).expect("ts_erase_org");
}

/// Backward there may be this many gaps: where the ledger is empty by then, what is older than the floor may be told twice.
fn check_erased(mut past: Past, backward_gaps: usize) {
    past.store("acme", &[&[300], &[240], &[30]]);
    let forward = Request::of("acme", Direction::Forward);
    let backward = Request { start: Some(past.at(310)), ..Request::of("acme", Direction::Backward) };
    let schedule = Schedule::of("acme", past.at(310));
    let oldest = forward.page(&mut past.client).remove(0);
    let newest = backward.page(&mut past.client).remove(0);
    let scheduled = schedule.plays(&mut past.client).remove(0);
    erase(&mut past.client, "acme");
    for (request, gaps) in [(forward.after(&oldest), 1), (backward.after(&newest), backward_gaps)] {
        let page = request.page(&mut past.client);
        assert!(
            (1..=gaps).contains(&page.len()) && count_gaps(&page) == page.len(),
            "an org that is gone: {page:?}"
        );
        past.check_gap_for("erased", &page[0], (240, 240), (310, -5));
    }
    past.store("acme", &[&[50], &[20], &[10]]);
    let page = forward.after(&oldest).page(&mut past.client);
    past.check_gap_for("erased", &page[0], (240, 240), (310, -5));
    assert_eq!((count_gaps(&page), past.ages(&page)), (1, vec![50, 20, 10]));
    for row in &page {
        let rest = forward.after(row).page(&mut past.client);
        assert_eq!(count_gaps(&rest), 0, "a token of the new org");
    }
    let behind = forward.after(&page[0]).page(&mut past.client);
    assert_eq!(past.ages(&behind), [50, 20, 10]);
    let page = backward.after(&newest).page(&mut past.client);
    assert_eq!(past.ages(&page), [50], "backward");
    assert!((1..=backward_gaps).contains(&count_gaps(&page)), "backward: {page:?}");
    let gap = page.iter().find(|row| row.is_gap()).expect("the gap");
    past.check_gap_for("erased", gap, (240, 240), (310, -5));
    let plays = schedule.after(&scheduled).plays(&mut past.client);
    assert!(plays.len() == 4 && plays[0].row.is_gap(), "{plays:?}");
    erase(&mut past.client, "acme");
    past.store("acme", &[&[5]]);
    let again = forward.after(&oldest).page(&mut past.client);
    assert_eq!((count_gaps(&again), past.ages(&again)), (1, vec![5]), "erased twice");
}

#[test]
fn an_erased_org_is_a_gap() {
    check_erased(Past::new(crate::placed_database("erased")), 1);
}

#[test]
fn an_erased_org_is_a_gap_without_positions() {
    check_erased(Past::new(crate::database("erased_unplaced")), 2);
}
