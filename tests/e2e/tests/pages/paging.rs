//! Random events read by random pages, against the model.

use std::time::Instant;

use postgres::Client;
use tailstream_e2e::database::one;
use tailstream_e2e::{Database, Random, budget};

use crate::filter;
use crate::model::Model;
use crate::page::{Direction, MOST, Place, Request, Row, places};

const SIZES: [i32; 8] = [1, 1, 2, 7, 40, 300, 1000, MOST];
/// How many pages a pass has before it asks for all the rest.
const PAGES: usize = 25;

struct Scene {
    database: Database,
    writer: Client,
    /// Who reads makes no difference, nor how the planner goes about it, nor how times are printed.
    readers: Vec<Client>,
    model: Model,
}

impl Scene {
    fn new(random: &mut Random) -> Self {
        let database = crate::placed_database("paging");
        let mut writer = database.connect();
        writer.batch_execute("SELECT ts_create_tier('day', '1 day')").expect("a tier");
        let mut model = Model::new("acme", random);
        for size in [1, 1500, 800, 1, 40] {
            model.store(&mut writer, random, size);
        }
        for neighbour in ["acm", "acme2", "ACME"] {
            Model::new(neighbour, random).store(&mut writer, random, 200);
        }
        let readers = readers(&database);
        Self { database, writer, readers, model }
    }

    fn reader(&mut self, random: &mut Random) -> &mut Client {
        let number = random.below(self.readers.len());
        &mut self.readers[number]
    }

    /// The next page is what the model has next.
    #[track_caller]
    fn check_page(&mut self, random: &mut Random, request: &Request<'_>, place: Option<Place>) -> Vec<Row> {
        let mut expected = self.model.beyond(request, place);
        expected.truncate(request.size as usize);
        let rows = request.page(self.reader(random));
        assert_eq!(places(&rows), expected, "behind {place:?}: {request:?}");
        rows
    }
}

fn readers(database: &Database) -> Vec<Client> {
    let reader = database.login_role("reader", &["tailstream_reader"]);
    let bound = database.login_role("bound", &["tailstream_reader"]);
    let bind = format!("ALTER ROLE {bound} SET tailstream.org = 'acme'");
    database.connect().batch_execute(&bind).expect("a bound role");
    let mut odd = [database.connect(), database.connect_as(&reader), database.connect_as(&bound)];
    let settings = [
        "SET plan_cache_mode = force_generic_plan; SET datestyle = 'SQL, DMY'; SET timezone = 'America/St_Johns'",
        "SET enable_indexscan = off; SET enable_bitmapscan = off; SET timescaledb.enable_chunk_append = off",
        "SET enable_seqscan = off; SET timezone = 'Asia/Kathmandu'; SET standard_conforming_strings = off",
    ];
    for (client, settings) in odd.iter_mut().zip(settings) {
        client.batch_execute(settings).expect("settings");
    }
    let mut readers = vec![database.connect(), database.connect_as(&reader), database.connect_as(&bound)];
    readers.extend(odd);
    readers
}

fn any_request(random: &mut Random, model: &Model) -> Request<'static> {
    let direction = Direction::BOTH[random.below(2)];
    let mut request = Request::of(model.org, direction);
    request.start = random.chance(60).then(|| model.time(random));
    request.end = random.chance(50).then(|| model.time(random));
    request.filter = filter::any(random);
    request
}

/// One pass, in pages of all sizes, while events come in before and behind it.
fn pass(scene: &mut Scene, random: &mut Random, request: &Request<'static>) -> Vec<Row> {
    let mut request = request.clone();
    let mut rows: Vec<Row> = Vec::new();
    for page in 0.. {
        request.size = if page < PAGES { SIZES[random.below(SIZES.len())] } else { MOST };
        let place = rows.last().map(Row::place);
        let found = scene.check_page(random, &request, place);
        let full = found.len() == request.size as usize;
        rows.extend(found);
        if !full {
            break;
        }
        request.after = rows.last().map(|row| row.cursor.clone());
        if random.chance(20) {
            let count = 1 + random.below(8);
            scene.model.store(&mut scene.writer, random, count);
        }
    }
    rows
}

/// Whichever row's token is given, what comes is what lies behind that row.
fn resume(scene: &mut Scene, random: &mut Random, request: &Request<'static>, rows: &[Row]) {
    let Some(last) = rows.len().checked_sub(1) else { return };
    for _ in 0..6 {
        let row = match random.below(6) {
            0 => &rows[0],
            1 => &rows[last],
            _ => &rows[random.below(rows.len())],
        };
        let size = SIZES[random.below(SIZES.len())];
        scene.check_page(random, &request.after(row).size(size), Some(row.place()));
    }
    // What else is asked for may change on the way, the order may not.
    let row = &rows[random.below(rows.len())];
    let other = Request { direction: request.direction, ..any_request(random, &scene.model) };
    scene.check_page(random, &other.after(row), Some(row.place()));
}

#[test]
fn pages_are_the_whole_cut_into_pieces() {
    let mut random = Random::new("pages");
    let mut scene = Scene::new(&mut random);
    let chunks = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tailstream.events'::regclass";
    assert!(one::<i64>(&mut scene.database.connect(), chunks) >= 8, "too few chunks to read across");
    let until = Instant::now() + budget(15.0);
    let (mut passes, mut seen) = (0, 0);
    while Instant::now() < until || passes < 10 {
        let request = any_request(&mut random, &scene.model);
        let rows = pass(&mut scene, &mut random, &request);
        resume(&mut scene, &mut random, &request, &rows);
        passes += 1;
        seen += rows.len();
    }
    println!("{passes} passes, {seen} rows");
    assert!(seen > 1000, "the pages were all but empty: {seen} rows");
}

#[test]
fn every_row_of_a_pass_can_be_gone_on_from() {
    let mut random = Random::new("resumption");
    let database = crate::placed_database("resumed");
    let mut client = database.connect();
    client.batch_execute("SELECT ts_create_tier('day', '1 day')").expect("a tier");
    let mut model = Model::new("acme", &mut random);
    for _ in 0..4 {
        model.store(&mut client, &mut random, 60);
    }
    for direction in Direction::BOTH {
        let request = Request::of(model.org, direction);
        let whole = request.page(&mut client);
        assert_eq!(places(&whole), model.beyond(&request, None), "{direction:?}");
        for (number, row) in whole.iter().enumerate() {
            let rest = request.after(row).page(&mut client);
            assert_eq!(places(&rest), places(&whole[number + 1..]), "{direction:?} behind row {number}");
        }
        for size in [1, 7, 240, 241] {
            let pages = request.size(size).all_pages(&mut client);
            assert_eq!(places(&pages), places(&whole), "{direction:?} by {size}");
        }
    }
}

#[test]
fn an_event_of_a_page_is_the_one_of_the_view() {
    let database = crate::database("columns");
    let mut client = database.connect();
    let event = r#"{"host":"h","method":"PUT","path":"/p","status":201,"rt":0.0425,"bytes":7,"user_agent":"u","referrer":"r","ip":"::1/64","k":[1.50]}"#;
    client.execute("SELECT ts_ingest('acme', ('[' || $1 || ',{}]')::json)", &[&event]).expect("ingest");
    let columns = "id, created_at, org_id, host, method, path, status, response_time, response_size,
                   user_agent, referrer, ip_address, metadata";
    for source in
        ["ts_replay_page('acme', NULL, NULL)", "ts_replay_schedule('acme', now() - interval '1 hour', now())"]
    {
        let same = format!(
            "SELECT count(*) FROM (SELECT {columns}, ts_event(p)::text FROM {source} p
                 INTERSECT ALL SELECT {columns}, ts_event(e)::text FROM tailstream.log_events e) x"
        );
        assert_eq!(one::<i64>(&mut client, &same), 2, "{source}");
    }
}
