//! Events that a reader had not reached and that its org's retention hides by now: the reader is told, and only then.

use tailstream_e2e::refused;

use crate::ledger::{Past, count_gaps};
use crate::page::{Direction, MOST, Request};
use crate::schedule::{Schedule, timeline};

#[test]
fn what_a_downgrade_hides_is_a_gap() {
    let mut past = Past::new(crate::placed_database("hidden"));
    past.store("acme", &[&[300], &[240, 180], &[90], &[30], &[10]]);
    past.settle();
    let forward = Request::of("acme", Direction::Forward);
    let oldest = forward.size(1).page(&mut past.client).remove(0);
    let backward = Request { start: Some(past.at(290)), ..Request::of("acme", Direction::Backward) };
    let newest = backward.size(1).page(&mut past.client).remove(0);
    assert_eq!(past.ages(&[oldest.clone(), newest.clone()]), [300, 10]);
    past.set_tier("acme", "narrow");

    for (size, events) in [(1, vec![30]), (2, vec![30, 10]), (MOST, vec![30, 10])] {
        let page = forward.after(&oldest).size(size).page(&mut past.client);
        past.check_gap(&page[0], (240, 90), (300, 30));
        assert_eq!((count_gaps(&page), past.ages(&page)), (1, events), "a gap is first and does not count");
        let behind = forward.after(&page[0]).page(&mut past.client);
        assert_eq!((count_gaps(&behind), past.ages(&behind)), (0, vec![30, 10]), "behind the gap");
    }
    for size in [1, 2, MOST] {
        let pages = backward.after(&newest).size(size).all_pages(&mut past.client);
        assert_eq!((count_gaps(&pages), past.ages(&pages)), (1, vec![30]), "backward by {size}");
        past.check_gap(&pages[1], (240, 90), (290, 30));
        let behind = backward.after(&pages[1]).page(&mut past.client);
        assert!(behind.is_empty(), "behind the gap: {behind:?}");
    }
    for request in [&forward, &Request { start: None, ..backward.clone() }] {
        let anew = request.page(&mut past.client);
        assert_eq!(count_gaps(&anew), 0, "who begins anew has lost nothing");
        assert_eq!(anew.len(), 2);
    }
    refused("a first page from before the retention", backward.try_page(&mut past.client), &["22008"]);
}

#[test]
fn an_event_lost_at_the_very_time_of_the_position_is_a_gap() {
    let mut past = Past::new(crate::placed_database("simultaneous"));
    // In one batch the second event is known by its offset alone, in two batches by their numbers.
    past.store("together", &[&[300, 300], &[30]]);
    past.store("apart", &[&[300], &[300], &[30]]);
    past.settle();
    for org in ["together", "apart"] {
        let request = Request::of(org, Direction::Forward);
        let rows = request.page(&mut past.client);
        past.set_tier(org, "narrow");
        let page = request.after(&rows[0]).page(&mut past.client);
        past.check_gap(&page[0], (300, 300), (300, 30));
        assert_eq!((count_gaps(&page), past.ages(&page)), (1, vec![30]), "{org}");
        let page = request.after(&rows[1]).page(&mut past.client);
        assert_eq!((count_gaps(&page), past.ages(&page)), (0, vec![30]), "{org} had everything");
    }
}

#[test]
fn a_quiet_org_without_loss_has_no_gap() {
    let mut past = Past::new(crate::placed_database("quiet"));
    past.store("noisy", &[&[320], &[250], &[120], &[5]]);
    for (org, batches, read, rest) in [
        ("seldom", &[&[300][..], &[30]][..], 1, vec![30]),
        ("batched", &[&[310, 300], &[30]], 2, vec![30]),
        ("earlier", &[&[320], &[310], &[300], &[30]], 3, vec![30]),
        ("silent", &[&[300]], 1, vec![]),
    ] {
        past.store(org, batches);
        past.settle();
        let request = Request::of(org, Direction::Forward);
        let rows = request.size(read).page(&mut past.client);
        past.set_tier(org, "narrow");
        let page = request.after(&rows[rows.len() - 1]).page(&mut past.client);
        assert_eq!((count_gaps(&page), past.ages(&page)), (0, rest), "{org}");
    }
    past.store("young", &[&[40], &[30], &[10]]);
    past.settle();
    let backward = Request { start: Some(past.at(300)), ..Request::of("young", Direction::Backward) };
    let newest = backward.size(1).page(&mut past.client).remove(0);
    past.set_tier("young", "narrow");
    let page = backward.after(&newest).page(&mut past.client);
    assert_eq!((count_gaps(&page), past.ages(&page)), (0, vec![30, 40]), "backward");
}

#[test]
fn a_gaps_token_goes_on_until_more_is_lost() {
    let mut past = Past::new(crate::placed_database("chained"));
    past.client.batch_execute("SELECT ts_create_tier('tiny', '20 minutes')").expect("a tier");
    past.store("acme", &[&[300], &[240], &[100], &[50], &[10]]);
    past.settle();
    let request = Request::of("acme", Direction::Forward);
    let oldest = request.size(1).page(&mut past.client).remove(0);
    past.set_tier("acme", "narrow");
    let page = request.after(&oldest).page(&mut past.client);
    past.check_gap(&page[0], (240, 100), (300, 50));
    past.set_tier("acme", "tiny");
    let next = request.after(&page[0]).page(&mut past.client);
    past.check_gap(&next[0], (50, 50), (100, 10));
    assert_eq!((count_gaps(&next), past.ages(&next)), (1, vec![10]));
    let reached = request.after(&page[1]).page(&mut past.client);
    assert_eq!(
        (count_gaps(&reached), past.ages(&reached)),
        (0, vec![10]),
        "who had read on has lost nothing"
    );
    let whole = request.after(&oldest).page(&mut past.client);
    past.check_gap(&whole[0], (240, 50), (300, 10));
    assert_eq!((count_gaps(&whole), past.ages(&whole)), (1, vec![10]), "who had not has one gap");
}

#[test]
fn what_was_not_asked_for_is_no_gap() {
    let mut past = Past::new(crate::placed_database("ranges"));
    past.store("acme", &[&[300], &[240], &[180], &[50], &[10]]);
    past.settle();
    let request = Request::of("acme", Direction::Forward);
    let oldest = request.size(1).page(&mut past.client).remove(0);
    past.set_tier("acme", "narrow");
    let behind = request.after(&oldest);
    let from = |age| Request { start: Some(past.at(age)), ..behind.clone() };
    let until = |age| Request { end: Some(past.at(age)), ..behind.clone() };
    let requests = [from(55), from(200), until(250), until(200)];
    let [late, middle, before, between] = requests.map(|request| request.page(&mut past.client));
    assert_eq!((count_gaps(&late), past.ages(&late)), (0, vec![50, 10]), "all that is asked for is there");
    past.check_gap(&middle[0], (180, 180), (300, 50));
    assert_eq!((count_gaps(&middle), past.ages(&middle)), (1, vec![50, 10]));
    assert!(before.is_empty(), "nothing that is asked for was lost: {before:?}");
    past.check_gap(&between[0], (240, 240), (300, 50));
    assert_eq!((count_gaps(&between), past.ages(&between)), (1, vec![]));
}

#[test]
fn an_upgrade_is_no_gap() {
    let mut past = Past::new(crate::placed_database("upgraded"));
    past.client.batch_execute("SELECT ts_create_tier('wider', '30 days')").expect("a tier");
    for direction in Direction::BOTH {
        let org = direction.name();
        past.store(org, &[&[300], &[240], &[50], &[10]]);
        past.settle();
        let request = Request { start: Some(past.at(310)), ..Request::of(org, direction) };
        let rows = request.page(&mut past.client);
        past.set_tier(org, "wider");
        let rest = request.after(&rows[0]).page(&mut past.client);
        assert_eq!(rest, rows[1..], "{org}");
    }
}

#[test]
fn a_schedule_begins_with_its_gap() {
    let mut past = Past::new(crate::placed_database("scheduled_gap"));
    past.store("acme", &[&[300], &[240], &[30], &[10]]);
    past.settle();
    let schedule = Schedule::of("acme", past.at(310));
    let first = schedule.plays(&mut past.client).remove(0);
    past.set_tier("acme", "narrow");
    let plays = schedule.after(&first).plays(&mut past.client);
    let rows: Vec<_> = plays.iter().map(|play| play.row.clone()).collect();
    past.check_gap(&rows[0], (240, 240), (300, 30));
    assert_eq!((count_gaps(&rows), past.ages(&rows)), (1, vec![30, 10]));
    assert!(plays[1].at() >= first.at(), "{plays:?}");
    let behind = schedule.after(&plays[0]).plays(&mut past.client);
    assert_eq!(timeline(&behind), timeline(&plays[1..]), "behind the gap the clock is the same");
    refused("a first schedule from before the retention", schedule.try_plays(&mut past.client), &["22008"]);
}
