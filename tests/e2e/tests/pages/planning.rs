//! What `ts_replay` plans when its start is not a constant.

use postgres::Client;
use serde_json::Value;
use tailstream_e2e::database::one;

const CHUNKS: i64 = 60;

fn prepare(client: &mut Client) {
    client
        .batch_execute(&format!(
            "SELECT ts_set_org_tier('acme', 'premium');
             INSERT INTO tailstream.events (id, created_at, org_id, tier, path)
             SELECT h * 10 + n, now() - h * interval '1 hour' - n * interval '7 minutes', 'acme', 2, '/'
             FROM generate_series(0, {CHUNKS} - 1) h, generate_series(1, 3) n"
        ))
        .expect("events of many hours");
}

/// How many chunks the plan of a statement has.
fn planned(client: &mut Client, sql: &str) -> usize {
    fn count(plan: &Value) -> usize {
        let own = plan["Relation Name"].as_str().is_some_and(|name| name.starts_with("_hyper_"));
        let below: usize = plan["Plans"].as_array().into_iter().flatten().map(count).sum();
        usize::from(own) + below
    }
    let explained: Value = one(client, &format!("EXPLAIN (FORMAT JSON) {sql}"));
    count(&explained[0]["Plan"])
}

#[test]
fn a_start_before_the_present_plans_only_the_chunks_after_it() {
    let database = crate::database("planning");
    let mut client = database.connect();
    prepare(&mut client);
    let starts = [
        ("now() - interval '1 hour'", 7),
        ("CURRENT_TIMESTAMP - interval '90 minutes'", 7),
        ("statement_timestamp() + interval '-2 hours'", 8),
        ("transaction_timestamp() - interval '1 day' - interval '1 hour'", 57),
        // Nothing is known of this one, so all are planned.
        ("date_trunc('hour', now())", CHUNKS as usize + 2),
    ];
    for (start, most) in starts {
        let replay = format!("SELECT * FROM ts_replay('acme', {start}, now() + interval '1 minute')");
        let chunks = planned(&mut client, &replay);
        assert!((1..=most).contains(&chunks), "{start}: {chunks} chunks, at most {most} expected");
        let by_hand = format!(
            "SELECT count(*) FROM tailstream.events WHERE created_at >= {start} AND created_at < now()"
        );
        let expected: i64 = one(&mut client, &by_hand);
        let replayed: i64 = one(&mut client, &format!("SELECT count(*) FROM ({replay}) r"));
        assert_eq!(replayed, expected, "{start}");
    }
}

#[test]
fn a_generic_plan_of_any_start_shows_everything() {
    let database = crate::database("planning_generic");
    let mut client = database.connect();
    prepare(&mut client);
    client.batch_execute("SET plan_cache_mode = force_generic_plan").expect("generic plans");
    let replay = client
        .prepare(
            "SELECT count(*) FROM ts_replay('acme', now() - $1::text::interval, now() + interval '1 minute')",
        )
        .expect("a statement");
    for hours in [1, 30, 2, CHUNKS] {
        let count: i64 =
            client.query_one(&replay, &[&format!("{hours} hours 1 second")]).expect("a replay").get(0);
        let expected: i64 = one(
            &mut client,
            &format!(
                "SELECT count(*) FROM tailstream.events WHERE created_at >= now() - interval '{hours} hours 1 second'"
            ),
        );
        assert_eq!(count, expected, "{hours} hours");
    }
}
