//! A page is read from the index at its position, and nothing is read that it does not need.

use std::collections::HashMap;

use postgres::Client;
use serde_json::json;
use tailstream_devkit::event::now_micros;
use tailstream_e2e::Database;

use crate::page::{Direction, Request, Row};
use crate::plan::{Chunk, Node, Observer, Plan, chunks, index_scans, scans};
use crate::{HOUR, MINUTE};

const HOURS: i64 = 6;
/// Events of an org in each hour of each tier.
const EVENTS: i64 = 1_500;
const SIZE: i32 = 100;

/// Two tiers' events of some hours, every tenth of them a failure, in no order on disk, among those of other orgs.
fn prepare(name: &str) -> (Database, i64) {
    let database = crate::database(name);
    let now = now_micros();
    let step = HOUR / EVENTS;
    let sql = format!(
        "SELECT ts_set_org_tier('acme', 'premium');
         INSERT INTO tailstream.events (id, created_at, org_id, tier, host, method, path, status, user_agent)
         SELECT n * 10 + tier, 'epoch'::timestamptz + ({now} - n::bigint * {step} - tier) * interval '1 microsecond', org, tier,
                'web-1', 'GET', '/' || n, CASE n % 10 WHEN 0 THEN 500 ELSE 200 END, repeat('x', 100)
         FROM generate_series(1, {HOURS} * {EVENTS}) n, unnest('{{1,2}}'::int[]) tier, unnest('{{acme,other}}'::text[]) org
         ORDER BY hashint8(n);
         ANALYZE tailstream.events"
    );
    database.connect().batch_execute(&sql).expect("events");
    (database, now)
}

/// Every second session is bound, and so reads the other view.
fn observers(database: &Database) -> [Observer; 2] {
    let mut bound = Observer::new(database);
    bound.client.batch_execute("SET tailstream.org = 'acme'").expect("a bound session");
    [Observer::new(database), bound]
}

/// What is behind a row is found by the index, where the page ends too, and chunks outside are not touched.
fn check_position(scan: &Node, chunk: Chunk, request: &Request<'_>, row: &Row) {
    let (at, _) = row.place();
    let operator = if request.direction == Direction::Forward { '>' } else { '<' };
    let position = format!("ROW(created_at, id) {operator} ROW(");
    let is_inside = (chunk.start..chunk.end).contains(&at);
    assert!(!is_inside || scan.index_cond.contains(&position), "no position: {scan:?}");
    let limit = if request.direction == Direction::Forward { "created_at < " } else { "created_at >= " };
    assert!(scan.index_cond.contains(limit), "no end: {scan:?}");
    let direction = if request.direction == Direction::Forward { "Forward" } else { "Backward" };
    assert_eq!(scan.direction, direction, "{scan:?}");
    let (from, to) = match request.direction {
        Direction::Forward => (at, request.end.expect("an end")),
        Direction::Backward => (request.start.expect("a start"), at + 1),
    };
    assert!(chunk.end > from && chunk.start < to, "{chunk:?} is not part of {from}..{to}: {scan:?}");
}

#[test]
fn position_range_and_filter_reach_the_index() {
    let (database, now) = prepare("pushed");
    let chunks = chunks(&mut database.connect());
    for mut observer in observers(&database) {
        for direction in Direction::BOTH {
            let request = Request {
                start: Some(now - HOURS * HOUR + 10 * MINUTE),
                end: Some(now - 10 * MINUTE),
                filter: Some(json!({ "status": "5xx", "path": ["/2", "/3", "/5", "/6"], "host": "web-1" })),
                size: SIZE,
                ..Request::of("acme", direction)
            };
            // Half-way through.
            let middle = Request {
                start: Some(now - 3 * HOUR),
                end: Some(now - 3 * HOUR + MINUTE),
                filter: None,
                ..request.clone()
            };
            let row = &middle.page(&mut observer.client)[0];
            // The first time it is planned for its values, later for any in that hour.
            for _ in 0..3 {
                let (page, plans) = observer.nested(|client| request.after(row).page(client));
                assert_eq!(page.len(), SIZE as usize);
                for scan in index_scans(&plans, &chunks) {
                    check_position(scan, chunks[&scan.relation], &request, row);
                    for column in ["status", "path", "host"] {
                        assert!(
                            scan.filter.contains(column),
                            "{column} is not looked at in the scan: {scan:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_page_within_an_hour_reads_that_hours_chunks_alone() {
    let (database, now) = prepare("excluded");
    let chunks = chunks(&mut database.connect());
    let hour = (now - 2 * HOUR).div_euclid(HOUR) * HOUR;
    for mut observer in observers(&database) {
        for direction in Direction::BOTH {
            let request =
                Request { start: Some(hour), end: Some(hour + HOUR), ..Request::of("acme", direction) };
            let (page, plans) = observer.nested(|client| request.page(client));
            assert!(page.len() as i64 >= 2 * EVENTS - 2, "{} rows", page.len());
            let read: Vec<i64> =
                scans(&plans, &chunks).iter().map(|scan| chunks[&scan.relation].start).collect();
            assert!(read.iter().all(|start| *start == hour), "chunks of {read:?} for a page of {hour}");
        }
    }
}

/// Reads a page; returns also how many blocks that touched.
fn cost(observer: &mut Observer, request: &Request<'_>) -> (Vec<Row>, Vec<Plan>, i64) {
    let (page, plans) = observer.nested(|client: &mut Client| request.page(client));
    assert!(plans.iter().all(|plan| !plan.compiled), "a page was compiled");
    let blocks = plans.iter().map(|plan| plan.buffers).sum();
    (page, plans, blocks)
}

/// Each chunk that is merged gives a row before it is known to be needed; no other row is looked at in vain.
fn check_rows(plans: &[Plan], chunks: &HashMap<String, Chunk>) {
    let scans = index_scans(plans, chunks);
    let rows: f64 = scans.iter().map(|scan| scan.rows).sum();
    let most = f64::from(SIZE) + scans.len() as f64 + 1.0;
    assert!(rows <= most, "{rows} rows were read for a page of {SIZE}: {scans:#?}");
}

#[test]
fn the_last_page_costs_what_the_first_did() {
    const PAGES: i64 = 2 * HOURS * EVENTS / SIZE as i64;
    let (database, _) = prepare("depth");
    let chunks = chunks(&mut database.connect());
    for mut observer in observers(&database) {
        for direction in Direction::BOTH {
            let mut request = Request { size: SIZE, ..Request::of("acme", direction) };
            // The first of all fills caches.
            cost(&mut observer, &request);
            let first = cost(&mut observer, &request).2;
            for number in 1..=PAGES {
                let (page, plans, blocks) = cost(&mut observer, &request);
                assert_eq!(page.len(), SIZE as usize, "page {number} of {PAGES}");
                let most = first + first / 2 + 50;
                assert!(blocks <= most, "page {number} touched {blocks} blocks, the first {first}");
                // What little is left in the end may be sorted.
                if number < PAGES - 20 {
                    check_rows(&plans, &chunks);
                }
                request = request.after(&page[page.len() - 1]);
            }
            assert!(request.page(&mut observer.client).is_empty());
        }
    }
}
