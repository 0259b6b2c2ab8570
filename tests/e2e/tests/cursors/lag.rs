//! The view of all cursors, and how far behind each is.

use postgres::Client;
use tailstream_e2e::Random;
use tailstream_e2e::cursor::{arrival_order, fetched, ids, store};
use tailstream_e2e::database::{column, one};
use tailstream_e2e::positions::wait_until_all_placed;

use crate::{LONG, create, database, run};

/// What the view says of a cursor: position, events behind it, whether it lags in time.
fn view(client: &mut Client, name: &str) -> (Option<i64>, i64, bool) {
    let sql = format!(
        "SELECT position_id, lag_events, coalesce(lag, '0') > '0', last_active <= clock_timestamp(),
                created_at <= last_active, expires_at > now() + interval '6 days', coalesce(lag, '0') >= '0'
         FROM tailstream.cursors WHERE name = '{name}'"
    );
    let row = client.query_one(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    for sane in 3..7 {
        assert!(row.get::<_, bool>(sane), "{name}: column {sane} of {sql}");
    }
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn the_view_says_exactly_how_many_events_are_behind_each_position() {
    let mut random = Random::new("cursor lag");
    let database = database("lag");
    let mut client = database.connect();
    for order in ["arrival", "event_time"] {
        create(&mut client, &format!("'{order}', 'acme', order_by => '{order}'"));
        assert_eq!(view(&mut client, order).1, 0, "{order}: an org without events");
    }
    for _ in 0..40 {
        let ages: Vec<i64> = (0..=random.below(6)).map(|_| random.between(1, 3_000)).collect();
        let events: Vec<(&str, i64)> = ages.iter().map(|age| ("x", *age)).collect();
        store(&mut client, random.pick(&["acme", "acme", "other"]), &events);
    }
    wait_until_all_placed(&mut client, LONG);
    let by_time = "SELECT id FROM tailstream.events WHERE org_id = 'acme' ORDER BY created_at, id";
    let expected = [arrival_order(&mut client, "acme"), column(&mut client, by_time)];
    for (order, all) in ["arrival", "event_time"].iter().zip(&expected) {
        let mut behind = all.len();
        while behind > 0 {
            let (_, lag_events, lags) = view(&mut client, order);
            assert_eq!((lag_events, lags), (behind as i64, true), "{order}");
            let n = 1 + random.below(9);
            let rows = fetched(&mut client, &format!("'{order}', {n}, auto_ack => true"));
            behind -= rows.len();
            let last = *ids(&rows).last().expect("an event");
            check_position(&mut client, order, last);
        }
        let (_, lag_events, lags) = view(&mut client, order);
        assert_eq!((lag_events, lags), (0, false), "{order}: it has everything");
        run(&mut client, &format!("ts_cursor_seek('{order}', 'beginning')"));
        assert_eq!(view(&mut client, order).1, all.len() as i64);
        run(&mut client, &format!("ts_cursor_seek('{order}', 'now')"));
        assert_eq!(view(&mut client, order).1, 0);
    }
}

/// The position is that of the event that was acknowledged last; by arrival it may be the place behind it.
#[track_caller]
fn check_position(client: &mut Client, order: &str, last: i64) {
    let expected = match order {
        "arrival" => {
            format!("SELECT p.seq, p.placed_at FROM tailstream.positions p WHERE p.batch_id = {}", last >> 16)
        }
        _ => format!("SELECT e.id, e.created_at FROM tailstream.events e WHERE e.id = {last}"),
    };
    let sql = format!(
        "SELECT c.position_id, e.id, c.position_at IS NOT DISTINCT FROM e.at
         FROM tailstream.cursors c, ({expected}) e (id, at) WHERE c.name = '{order}'"
    );
    let row = client.query_one(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let (found, wanted): (i64, i64) = (row.get(0), row.get(1));
    let next = i64::from(order == "arrival");
    assert!((wanted..=wanted + next).contains(&found), "{order}: position_id {found} after {wanted}");
    assert!(row.get::<_, bool>(2), "{order}: position_at");
}

#[test]
fn the_view_has_its_columns_and_needs_no_lock() {
    let database = database("viewed");
    let (mut client, mut holder) = (database.connect(), database.connect());
    create(&mut client, r#"'c', 'acme', filter => '{"status": 404}', order_by => 'event_time'"#);
    holder.batch_execute("BEGIN").expect("begin");
    fetched(&mut holder, "'c'");
    let columns: Vec<String> = column(
        &mut client,
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'tailstream.cursors'::regclass AND attnum > 0 ORDER BY attnum",
    );
    assert_eq!(
        columns,
        [
            "name",
            "org_id",
            "order_by",
            "filter",
            "position_at",
            "position_id",
            "lag_events",
            "lag",
            "created_at",
            "last_active",
            "expires_at"
        ]
    );
    let sql = "SELECT org_id || ' ' || order_by || ' ' || filter FROM tailstream.cursors WHERE name = 'c'";
    assert_eq!(one::<String>(&mut client, sql), r#"acme event_time {"status": 404}"#);
    holder.batch_execute("ROLLBACK").expect("rollback");
}
