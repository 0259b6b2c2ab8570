//! A session that stays in an hour keeps the plan for it, and must not miss what is made or dropped under that plan.

use postgres::Client;
use serde_json::json;
use tailstream_devkit::event::now_micros;
use tailstream_e2e::Database;
use tailstream_e2e::database::{column, one};

use crate::page::{Direction, Place, Request, places};
use crate::plan::{Observer, chunks, scans};
use crate::{HOUR, MINUTE};

/// The hour before the last.
fn hour() -> i64 {
    (now_micros() - 2 * HOUR).div_euclid(HOUR) * HOUR
}

/// Some events of an hour in a tier, three minutes apart.
fn store(client: &mut Client, hour: i64, tier: i16) {
    let sql = format!(
        "INSERT INTO tailstream.events (id, created_at, org_id, tier, status)
         SELECT n * 10 + {tier}, 'epoch'::timestamptz + ({hour} + n * 3 * {MINUTE} + {tier}) * interval '1 microsecond', 'acme', {tier}, 200
         FROM generate_series(0::bigint, 19) n"
    );
    client.batch_execute(&sql).expect("events");
}

fn requests(hour: i64) -> Vec<Request<'static>> {
    let directions = Direction::BOTH.into_iter();
    directions
        .flat_map(|direction| {
            let request =
                Request { start: Some(hour), end: Some(hour + HOUR), ..Request::of("acme", direction) };
            let filtered = Request { filter: Some(json!({ "status": "2xx" })), ..request.clone() };
            let open = Request { end: None, ..request.clone() };
            [request, filtered, open]
        })
        .collect()
}

/// What each request brings, asked often enough for a plan that is kept.
fn read(client: &mut Client, requests: &[Request<'_>]) -> Vec<Vec<Place>> {
    let kept = |request: &Request<'_>| {
        let all: Vec<Vec<Place>> = (0..3).map(|_| sorted(&request.page(client))).collect();
        assert!(all.iter().all(|one| *one == all[0]), "{request:?} brings {all:?}");
        all[0].clone()
    };
    requests.iter().map(kept).collect()
}

fn sorted(rows: &[crate::page::Row]) -> Vec<Place> {
    let mut places = places(rows);
    places.sort_unstable();
    places
}

fn prepare(name: &str) -> (Database, i64) {
    let database = crate::database(name);
    let mut client = database.connect();
    client.batch_execute("SELECT ts_set_org_tier('acme', 'premium')").expect("an org");
    let hour = hour();
    store(&mut client, hour, 1);
    (database, hour)
}

#[test]
fn a_chunk_made_under_a_kept_plan_is_read() {
    let (database, hour) = prepare("made");
    let mut readers = [database.connect(), database.connect()];
    readers[1].batch_execute("SET tailstream.org = 'acme'").expect("a bound session");
    let requests = requests(hour);
    let mut writer = database.connect();
    for (tier, events) in [(1, 20), (2, 40)] {
        if tier == 2 {
            store(&mut writer, hour, 2);
        }
        for reader in &mut readers {
            for found in read(reader, &requests) {
                assert_eq!(found.len(), events, "{found:?}");
            }
        }
    }
}

#[test]
fn a_chunk_made_by_the_reader_itself_is_read_before_and_after_a_rollback() {
    let (database, hour) = prepare("own");
    let mut client = database.connect();
    let requests = requests(hour);
    let count =
        |client: &mut Client| -> Vec<usize> { read(client, &requests).iter().map(Vec::len).collect() };
    assert_eq!(count(&mut client), vec![20; requests.len()]);
    client.batch_execute("BEGIN").expect("BEGIN");
    store(&mut client, hour, 2);
    assert_eq!(count(&mut client), vec![40; requests.len()]);
    client.batch_execute("ROLLBACK").expect("ROLLBACK");
    assert_eq!(count(&mut client), vec![20; requests.len()]);
}

#[test]
fn a_chunk_dropped_under_a_kept_plan_is_no_harm() {
    let (database, hour) = prepare("dropped");
    let mut writer = database.connect();
    store(&mut writer, hour, 2);
    let mut reader = database.connect();
    let requests = requests(hour);
    for found in read(&mut reader, &requests) {
        assert_eq!(found.len(), 40);
    }
    let dropped: Vec<String> = column(
        &mut writer,
        "SELECT c.chunk::text FROM tailstream.chunks('tailstream.events', 'created_at') c WHERE c.tier = 1",
    );
    for chunk in &dropped {
        let sql = format!("SELECT _timescaledb_functions.drop_chunk('{chunk}')");
        writer.batch_execute(&sql).expect("a chunk less");
    }
    assert!(!dropped.is_empty());
    for found in read(&mut reader, &requests) {
        assert_eq!(found.len(), 20, "{found:?}");
    }
}

#[test]
fn a_kept_plan_opens_the_chunks_of_its_hour_alone() {
    let (database, hour) = prepare("kept");
    let mut writer = database.connect();
    for other in [hour - HOUR, hour + HOUR] {
        store(&mut writer, other, 1);
    }
    let chunks = chunks(&mut writer);
    let mut observer = Observer::new(&database);
    for direction in Direction::BOTH {
        let request =
            Request { start: Some(hour), end: Some(hour + HOUR), ..Request::of("acme", direction) }.size(5);
        let row = &request.page(&mut observer.client)[0];
        for _ in 0..3 {
            let (page, plans) = observer.nested(|client| request.after(row).page(client));
            assert_eq!(page.len(), 5);
            let read: Vec<i64> =
                scans(&plans, &chunks).iter().map(|scan| chunks[&scan.relation].start).collect();
            assert_eq!(read, [hour], "one scan of that hour");
            let scan = scans(&plans, &chunks)[0];
            assert!(scan.index_cond.contains("ROW(created_at, id)"), "no position: {scan:?}");
        }
    }
    // The plan is there: it was made for parameters, with the hour in it.
    let (_, plans) = observer.nested(|client| {
        request_of(hour, Direction::Forward).page(client);
        request_of(hour, Direction::Forward).page(client);
        request_of(hour, Direction::Forward).page(client)
    });
    let last = scans(&plans, &chunks).last().map(|scan| scan.index_cond.clone()).expect("a scan");
    assert!(last.contains("$1") && last.contains("timestamp with time zone"), "not a kept plan: {last}");
}

fn request_of(hour: i64, direction: Direction) -> Request<'static> {
    Request { start: Some(hour), end: Some(hour + HOUR), ..Request::of("acme", direction) }
}

#[test]
fn borders_mean_the_same_in_every_time_zone() {
    let (database, hour) = prepare("zones");
    let mut client = database.connect();
    let requests = requests(hour);
    let settings: Vec<String> = column(
        &mut client,
        "SELECT format('SET timezone = %L; SET datestyle = %L', zone, style)
         FROM unnest('{UTC,Asia/Kathmandu,America/St_Johns,Pacific/Chatham,Europe/London}'::text[]) zone,
              unnest('{\"ISO, DMY\",\"SQL, MDY\",\"German, DMY\",\"Postgres, YMD\"}'::text[]) style",
    );
    for setting in settings {
        let mut client = database.connect();
        client.batch_execute(&setting).expect("settings");
        for found in read(&mut client, &requests) {
            assert_eq!(found.len(), 20, "{setting}");
        }
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM tailstream.events"), 20);
}
