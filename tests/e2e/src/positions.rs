//! What the sequencer wrote down.

use std::time::{Duration, Instant};

use postgres::GenericClient;

use crate::database::column;
use crate::eventually;

/// Nobody may have to wait that long for a place, whatever others do. Woken at commit it takes milliseconds.
pub const SOON: Duration = Duration::from_secs(5);

/// Fails unless every batch with events has one place, and the places are one gapless order with growing stream ids.
#[track_caller]
pub fn check_positions(client: &mut impl GenericClient) {
    let odd: Vec<String> = column(
        client,
        "SELECT format('ledger %s, position %s', b, p) FROM (SELECT * FROM tailstream.batches WHERE event_count > 0) b
         FULL JOIN tailstream.positions p ON p.batch_id = b.batch_id
         WHERE (p.org_id, p.tier, p.event_count, p.first_event_at, p.last_event_at)
               IS DISTINCT FROM (b.org_id, b.tier, b.event_count, b.first_event_at, b.last_event_at)",
    );
    assert!(odd.is_empty(), "{} batches and positions do not go together: {:?}", odd.len(), odd.first());
    let twice: Vec<i64> =
        column(client, "SELECT batch_id FROM tailstream.positions GROUP BY 1 HAVING count(*) > 1");
    assert!(twice.is_empty(), "batches with two positions: {twice:?}");
    let broken: Vec<String> = column(
        client,
        "SELECT p::text FROM (
             SELECT p, p.seq, p.placed_at, p.stream_seq, p.events_before, row_number() OVER by_seq AS number,
                    lag(p.placed_at) OVER by_seq AS placed_before, lag(p.stream_seq + p.event_count) OVER by_seq AS free,
                    coalesce(sum(p.event_count) OVER (ORDER BY p.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS events
             FROM tailstream.positions p WINDOW by_seq AS (ORDER BY p.seq)) p
         WHERE seq <> number OR events_before <> events OR placed_at <> date_trunc('milliseconds', placed_at)
            OR placed_at < placed_before OR placed_at = placed_before AND stream_seq < free OR stream_seq < 0
         ORDER BY seq",
    );
    assert!(broken.is_empty(), "{} positions out of order, the first is {:?}", broken.len(), broken.first());
}

/// The number of a batch in the order, if it has one.
pub fn position(client: &mut impl GenericClient, batch: i64) -> Option<i64> {
    column(client, &format!("SELECT seq FROM tailstream.positions WHERE batch_id = {batch}")).pop()
}

/// Waits for a batch's place, but not long.
#[track_caller]
pub fn soon_placed(client: &mut impl GenericClient, batch: i64) -> i64 {
    eventually(&format!("batch {batch} to have its place"), SOON, || position(client, batch))
}

/// Waits until as many batches are placed as the ledger has.
#[track_caller]
pub fn wait_until_all_placed(client: &mut impl GenericClient, patience: Duration) {
    let began = Instant::now();
    loop {
        let unplaced = unplaced(client);
        if unplaced.is_empty() {
            return;
        }
        assert!(
            began.elapsed() < patience,
            "waited {patience:?} in vain for the places of {} batches: {:?}",
            unplaced.len(),
            &unplaced[..unplaced.len().min(3)]
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Batches without a place, each with what the sequencer had seen when it first found something later.
fn unplaced(client: &mut impl GenericClient) -> Vec<String> {
    let sql = "SELECT format('%s; next %s', b, p) FROM tailstream.batches b
         LEFT JOIN LATERAL (SELECT p.seq, p.batch_id, p.xid, p.snapshot, p.partial FROM tailstream.positions p
                            WHERE p.batch_id > b.batch_id AND p.snapshot IS NOT NULL ORDER BY p.seq LIMIT 1) p ON true
         WHERE b.event_count > 0 AND NOT EXISTS (SELECT FROM tailstream.positions p WHERE p.batch_id = b.batch_id)
         ORDER BY b.batch_id";
    column(client, sql)
}
