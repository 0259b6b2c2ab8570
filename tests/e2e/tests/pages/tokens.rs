//! Tokens are taken for what they were given for, and for nothing else.

use postgres::Client;
use tailstream_devkit::event::now_micros;
use tailstream_e2e::database::{column, one};
use tailstream_e2e::{Database, refused};

use crate::HOUR;
use crate::page::{Direction, Request, Row, places};
use crate::schedule::{Schedule, timeline};

/// A database whose orgs have some events each.
fn database_with(name: &str, orgs: &[&str]) -> Database {
    fill(crate::database(name), orgs)
}

fn fill(database: Database, orgs: &[&str]) -> Database {
    let mut client = database.connect();
    for org in orgs {
        client.execute("SELECT ts_ingest($1, '[{},{},{},{}]')", &[org]).expect("ingest");
    }
    database
}

fn schedule(org: &str) -> Schedule<'_> {
    Schedule::of(org, now_micros() - HOUR)
}

/// The second row of an org's page.
fn second(client: &mut Client, org: &str, direction: Direction) -> Row {
    Request::of(org, direction).page(client).remove(1)
}

#[test]
fn a_token_of_another_org_is_refused() {
    let database = database_with("swapped", &["acme", "other", "acme2"]);
    let mut client = database.connect();
    for direction in Direction::BOTH {
        let row = second(&mut client, "other", direction);
        for org in ["acme", "acme2", "unknown", "Other", "other "] {
            let request = Request::of(org, direction).after(&row);
            let error = refused(org, request.try_page(&mut client), &["42501"]);
            assert_eq!(error.message(), "token belongs to another org");
        }
    }
    let play = schedule("other").plays(&mut client).remove(1);
    refused("a schedule", schedule("acme").after(&play).try_plays(&mut client), &["42501"]);
    let own = schedule("other").after(&play).plays(&mut client);
    assert_eq!(own.len(), 2);
}

#[test]
fn a_token_of_the_other_direction_is_refused() {
    let database = database_with("turned", &["acme"]);
    let mut client = database.connect();
    for direction in Direction::BOTH {
        let row = second(&mut client, "acme", direction);
        let turned = Request::of("acme", direction.turned()).after(&row);
        refused(direction.name(), turned.try_page(&mut client), &["22023"]);
        let same = Request::of("acme", direction).after(&row);
        assert_eq!(same.page(&mut client).len(), 2);
    }
    let backward = schedule("acme");
    let token = Some(second(&mut client, "acme", Direction::Backward).cursor);
    refused("a schedule", Schedule { after: token, ..backward }.try_plays(&mut client), &["22023"]);
}

#[test]
fn pages_and_schedules_take_each_others_tokens_for_their_places_or_not_at_all() {
    let database = database_with("kinds", &["acme"]);
    let mut client = database.connect();
    let row = second(&mut client, "acme", Direction::Forward);
    let play = schedule("acme").plays(&mut client).remove(1);
    let rest = places(&Request::of("acme", Direction::Forward).after(&row).page(&mut client));
    match Request::of("acme", Direction::Forward).after(&play.row).try_page(&mut client) {
        Ok(page) => assert_eq!(places(&page), rest),
        error => drop(refused("a schedule's token for a page", error, &["22023"])),
    }
    let backward = Request::of("acme", Direction::Backward).after(&play.row);
    refused("a schedule's token backward", backward.try_page(&mut client), &["22023"]);
    match (Schedule { after: Some(row.cursor), ..schedule("acme") }).try_plays(&mut client) {
        Ok(plays) => assert_eq!(timeline(&plays).iter().map(|(place, _)| *place).collect::<Vec<_>>(), rest),
        error => drop(refused("a page's token for a schedule", error, &["22023"])),
    }
}

#[test]
fn a_token_of_another_order_is_refused() {
    let database = fill(crate::placed_database("orders"), &["acme"]);
    let mut client = database.connect();
    client.batch_execute("SELECT ts_cursor_create('arriving', 'acme')").expect("a cursor");
    let fetch = "SELECT cursor FROM ts_cursor_fetch('arriving', timeout => '20 s')";
    let arrival = column::<String>(&mut client, fetch).remove(0);
    let live: String = one(&mut client, "SELECT cursor FROM ts_replay_live('acme')");
    for (kind, token) in [("arrival", &arrival), ("live", &live)] {
        let backward = Request { after: Some(token.clone()), ..Request::of("acme", Direction::Backward) };
        refused(kind, backward.try_page(&mut client), &["22023"]);
    }
    let scheduled = Schedule { after: Some(arrival.clone()), ..schedule("acme") };
    refused("an arrival token for a schedule", scheduled.try_plays(&mut client), &["22023"]);
    // A page has no order of its own: it may go on where the cursor was, or refuse that.
    let page = Request { after: Some(arrival), ..Request::of("acme", Direction::Forward) };
    if let Ok(rest) = page.try_page(&mut client) {
        assert_eq!(rest.len(), 3, "behind the first of four");
    }
    let other = Request { after: Some(live.clone()), ..Request::of("other", Direction::Forward) };
    refused("another org's replay", other.try_page(&mut client), &["42501"]);
    // What comes after the boundary is in the live stream: a schedule must not show it, too.
    client.execute("SELECT ts_ingest('acme', '[{}]')", &[]).expect("ingest");
    if let Ok(plays) = (Schedule { after: Some(live), ..schedule("acme") }).try_plays(&mut client) {
        assert_eq!(plays.len(), 4, "a schedule goes beyond the boundary of its token");
    }
}

#[test]
fn a_token_of_another_database_is_refused() {
    let orgs = ["acme"];
    let [here, there] = ["here", "there"].map(|name| database_with(name, &orgs));
    let (mut client, mut other) = (here.connect(), there.connect());
    for direction in Direction::BOTH {
        let row = second(&mut other, "acme", direction);
        let request = Request::of("acme", direction).after(&row);
        assert_eq!(request.page(&mut other).len(), 2, "where it comes from");
        let error = refused("elsewhere", request.try_page(&mut client), &["22023"]);
        assert_eq!(error.message(), "token is not valid");
    }
    let play = schedule("acme").plays(&mut other).remove(0);
    refused("a schedule elsewhere", schedule("acme").after(&play).try_plays(&mut client), &["22023"]);
}

#[test]
fn the_longest_org_and_the_largest_places_have_short_tokens() {
    let database = crate::database("longest");
    let mut client = database.connect();
    client.batch_execute("SELECT ts_alter_tier('standard', '36500 days')").expect("a long retention");
    for org in ["ö".repeat(255), "'".repeat(255), "🦀".to_owned()] {
        let events = "INSERT INTO tailstream.events (id, created_at, org_id, tier) VALUES
                          (0, now() - interval '36400 days', $1, 1), (9223372036854775806, now(), $1, 1),
                          (9223372036854775807, now(), $1, 1)";
        client.execute(events, &[&org]).expect("events");
        for direction in Direction::BOTH {
            let pages = Request::of(&org, direction).size(1).all_pages(&mut client);
            // Before the retention was longer something may have been purged.
            let events = pages.iter().filter(|row| !row.is_gap()).count();
            assert_eq!(events, 3, "{direction:?}");
        }
        let start = now_micros() - 36_450 * 24 * HOUR;
        let mut schedule = Schedule::of(&org, start);
        schedule.clock.max_gap = 40_000 * 24 * HOUR;
        schedule.clock.speed = 1e-3;
        let plays = schedule.plays(&mut client);
        let last_but_one = &plays[plays.len() - 2];
        let rest = schedule.after(last_but_one).plays(&mut client);
        assert_eq!(timeline(&rest), timeline(&plays)[2..]);
    }
}
