//! The orgs of the test, and the conditions that their streams must meet when no faults occur any more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postgres::{Client, Config};
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_devkit::event::{now_micros, rfc3339};
use tailstream_e2e::database;
use tailstream_e2e::stream::{Entry, difference};
use tailstream_e2e::{Mirror, Sides, eventually};

/// `switched` is switched off and on, `moved` changes its tier, and `aged` has events that are purged. The others stay
/// as they are.
pub const ORGS: [&str; 5] = ["steady", "busy", "switched", "moved", "aged"];
/// The limit of entries of the tier, and the value to which it is lowered for a while.
pub const LIMIT: usize = 4_000;
pub const LOW_LIMIT: usize = 150;

const PATIENCE: Duration = Duration::from_secs(90);

/// The faults since all streams were last complete.
#[derive(Debug, Default)]
pub struct History {
    /// The mirror or an org was switched off, so only the end of a stream can be predicted.
    pub switched_all: bool,
    pub switched: BTreeSet<&'static str>,
    pub limit_lowered: bool,
}

impl History {
    /// The smallest permitted number of entries of an org's stream, if that many events were ingested.
    fn at_least(&self, org: &str) -> usize {
        match org {
            _ if self.switched_all => 0,
            org if self.switched.contains(org) => 0,
            _ if self.limit_lowered => LOW_LIMIT,
            _ => LIMIT,
        }
    }

    /// Whether entries may be missing inside a stream.
    fn has_gaps(&self, org: &str) -> bool {
        self.switched_all || self.switched.contains(org)
    }
}

pub fn prepare(client: &mut Client) {
    client
        .batch_execute(&format!(
            "SELECT ts_alter_tier('standard', stream_entries => {LIMIT}), ts_alter_tier('premium', stream_entries => {LIMIT})"
        ))
        .expect("tiers");
    for org in ORGS {
        client.execute("SELECT ts_set_org_tier($1, 'standard')", &[&org]).expect("an org");
    }
}

/// How writers connect while the server crashes and restarts.
pub fn config(mirror: &Mirror) -> Config {
    database::config(&mirror.cluster, mirror.database, SUPERUSER)
}

/// Executes a statement in its own session, and repeats it while the server is down or crashes during the statement.
pub fn insist(config: &Config, sql: &str) {
    eventually(&format!("{sql:.60} to be executed"), PATIENCE, || {
        let mut client = config.connect(postgres::NoTls).ok()?;
        match client.batch_execute(sql) {
            Ok(()) => Some(()),
            Err(error) if is_gone(&error) => None,
            Err(error) => panic!("{sql}: {error:?}"),
        }
    });
}

/// Whether the server has crashed or is shutting down.
pub fn is_gone(error: &postgres::Error) -> bool {
    error.code().is_none_or(|code| ["57P01", "57P02", "57P03", "XX000"].contains(&code.code()))
}

/// Ends all faults.
pub fn calm(mirror: &mut Mirror) {
    mirror.redis.start().expect("Redis");
    mirror.cluster.start().expect("the server");
    let config = config(mirror);
    for sql in [
        "ALTER SYSTEM RESET tailstream.failpoint",
        "ALTER SYSTEM RESET tailstream.mirror_enabled",
        "SELECT pg_reload_conf()",
        "SELECT ts_set_mirror('switched', true)",
    ] {
        insist(&config, sql);
    }
    insist(&config, &format!("SELECT ts_alter_tier('standard', '3 hours', {LIMIT})"));
}

/// Waits until there is no work left.
pub fn drain(sides: &mut Sides) {
    let began = Instant::now();
    loop {
        let wrong = sides.unsettled(&[]);
        if wrong.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the mirror does not come to rest: {wrong:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Fails unless every stream meets its conditions after these faults.
pub fn check(sides: &mut Sides, history: &History) {
    // New events must arrive in any case. They are the predictable end of the stream.
    let tail: Vec<i64> = ORGS.iter().map(|org| sides.ingest(org, 3)).collect();
    let began = Instant::now();
    loop {
        let mut wrong = sides.unsettled(&[]);
        for (org, batch) in ORGS.iter().zip(&tail) {
            wrong.extend(wrong_with(sides, org, *batch, history));
        }
        if wrong.is_empty() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{history:?}: {wrong:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    for org in ORGS {
        let findings = sides.verify(org);
        // Entries that were trimmed under a lower limit are missing under a higher one, until the stream is resynced.
        let missing = if history.limit_lowered { "missing" } else { "matching" };
        let known = ["matching", "expired", missing];
        let bad = findings.iter().any(|(kind, _)| !known.contains(&kind.as_str()));
        assert!(!bad, "{org} is as it should be, and ts_mirror_verify says {findings:?}");
    }
}

fn wrong_with(sides: &mut Sides, org: &str, tail: i64, history: &History) -> Option<String> {
    let mut found = sides.stream(org);
    let mut expected = sides.expected(org);
    let ids: BTreeSet<(i64, i64)> = expected.iter().map(|entry| entry.id).collect();
    if org == "aged" {
        // Events that were purged from the table may still be in the stream.
        let purged = rfc3339(now_micros() - 3_600_000_000);
        found.retain(|entry| ids.contains(&entry.id) || entry.time >= purged);
    }
    let at_least = if history.has_gaps(org) { 3 } else { history.at_least(org) };
    // A stream that was resynced begins after the last event that was purged before the resync, because it has no
    // holes.
    let behind_purged = behind_purged(sides, org, &ids);
    let start = window(sides, org, at_least).map(|start| start.max(behind_purged));
    let at_least = expected.iter().filter(|entry| start.is_some_and(|start| entry.id >= start)).count();
    if history.has_gaps(org) {
        let kept: BTreeSet<(i64, i64)> = found.iter().map(|entry| entry.id).collect();
        expected.retain(|entry| kept.contains(&entry.id) || entry.event_id >> 16 == tail);
    }
    let ends = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.event_id == tail << 16 | 2);
    if !ends(found.last()) {
        return Some(format!("{org}: does not end with batch {tail}"));
    }
    difference(&found, &expected, at_least).map(|difference| format!("{org}: {difference}"))
}

/// The id at which the last `events` events begin that came while the mirror was switched on. Events that were purged
/// since count too, because Redis counted them.
fn window(sides: &mut Sides, org: &str, events: usize) -> Option<(i64, i64)> {
    let sql = "SELECT (extract(epoch FROM placed_at) * 1000)::bigint, stream_seq + greatest(newer + event_count - $2, 0)::bigint
         FROM (SELECT p.placed_at, p.stream_seq, p.event_count,
                      sum(p.event_count) OVER (ORDER BY p.seq DESC) - p.event_count AS newer
               FROM tailstream.positions p
               WHERE p.org_id = $1 AND p.seq > (SELECT coalesce(max(after_seq), 0) FROM tailstream.mirror)) p
         WHERE newer < $2 ORDER BY newer DESC LIMIT 1";
    let row = sides.client.query_opt(sql, &[&org, &(events as i64)]).expect("positions");
    row.map(|row| (row.get(0), row.get(1)))
}

/// The id after the last event that has a position and is not in `present`; 0-0 if all are present.
fn behind_purged(sides: &mut Sides, org: &str, present: &BTreeSet<(i64, i64)>) -> (i64, i64) {
    let sql = "SELECT (extract(epoch FROM placed_at) * 1000)::bigint, stream_seq, event_count
         FROM tailstream.positions WHERE org_id = $1 ORDER BY seq DESC";
    let rows = sides.client.query(sql, &[&org]).expect("positions");
    let purged = rows.iter().find_map(|row| {
        let (ms, first, events): (i64, i64, i32) = (row.get(0), row.get(1), row.get(2));
        let gone = (first..first + i64::from(events)).rev().find(|seq| !present.contains(&(ms, *seq)));
        gone.map(|seq| (ms, seq + 1))
    });
    purged.unwrap_or_default()
}
