//! The snapshot tracker against a model of transactions that begin, write, commit and abort in any order.

use std::collections::BTreeSet;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    xid: u64,
    batch: i64,
}

impl Sequenced for Row {
    fn key(&self) -> (u64, i64) {
        (self.xid, self.batch)
    }
}

/// What a snapshot shows of the ledger.
struct Visible(Vec<Row>);

impl Ledger for Visible {
    type Row = Row;
    type Error = Infallible;

    fn of(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Row>, Infallible> {
        Ok(self.0.iter().filter(|row| row.xid == xid && row.batch > after).take(limit).copied().collect())
    }

    fn from(&mut self, xid: u64, after: i64, limit: usize) -> Result<Vec<Row>, Infallible> {
        Ok(self.0.iter().filter(|row| row.key() > (xid, after)).take(limit).copied().collect())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Write(usize),
    /// Its rows become visible, and it is not over yet.
    Commit(usize),
    Finish(usize),
    Abort(usize),
    Poll {
        limit: usize,
        crash: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Begin),
        6 => any::<usize>().prop_map(Step::Write),
        3 => any::<usize>().prop_map(Step::Commit),
        3 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Abort),
        3 => (1_usize..6, any::<bool>()).prop_map(|(limit, crash)| Step::Poll { limit, crash }),
    ]
}

/// A server with one ledger and one sequencer.
struct Model {
    next_xid: u64,
    next_batch: i64,
    /// Running transactions, and what each wrote; they have their id from the beginning.
    running: Vec<(u64, Vec<Row>)>,
    committing: Vec<u64>,
    committed: Vec<Row>,
    /// Pairs of transactions of which the first was over when the second began.
    before: Vec<(u64, u64)>,
    over: BTreeSet<u64>,
    tracker: SnapshotTracker,
    sequenced: Vec<Row>,
}

impl Model {
    fn new() -> Self {
        let seen = Snapshot { xmax: 3, running: Vec::new() };
        Self {
            next_xid: 3,
            next_batch: 1,
            running: Vec::new(),
            committing: Vec::new(),
            committed: Vec::new(),
            before: Vec::new(),
            over: BTreeSet::new(),
            tracker: SnapshotTracker::new(seen, "").unwrap(),
            sequenced: Vec::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Begin => {
                let xid = self.next_xid;
                self.next_xid += 1;
                self.before.extend(self.over.iter().map(|other| (*other, xid)));
                self.running.push((xid, Vec::new()));
            }
            Step::Write(which) if !self.running.is_empty() => {
                let index = which % self.running.len();
                let (xid, rows) = &mut self.running[index];
                rows.push(Row { xid: *xid, batch: self.next_batch });
                self.next_batch += 1;
            }
            Step::Commit(which) if !self.running.is_empty() => {
                let (xid, rows) = self.running.remove(which % self.running.len());
                self.committing.push(xid);
                self.committed.extend(rows);
            }
            Step::Finish(which) if !self.committing.is_empty() => {
                let xid = self.committing.remove(which % self.committing.len());
                self.over.insert(xid);
            }
            Step::Abort(which) if !self.running.is_empty() => {
                self.running.remove(which % self.running.len());
            }
            Step::Poll { limit, crash } => {
                self.poll(limit, crash);
            }
            _ => {}
        }
    }

    /// Returns whether every batch has a position. After a crash the tracker is restored from its stored text.
    fn poll(&mut self, limit: usize, crash: bool) -> bool {
        let mut running: Vec<u64> = self.running.iter().map(|(xid, _)| *xid).collect();
        running.sort_unstable();
        let now = Snapshot { xmax: self.next_xid, running }.without(&self.committing);
        let mut visible = Visible(self.committed.clone());
        visible.0.sort_by_key(Row::key);
        let Ok((rows, complete)) = self.tracker.poll(&now, limit, &mut visible);
        assert!(rows.len() <= limit);
        self.sequenced.extend(rows);
        if crash {
            let seen = self.tracker.seen().to_string().parse().unwrap();
            self.tracker = SnapshotTracker::new(seen, &self.tracker.partial().unwrap_or_default()).unwrap();
        }
        complete
    }

    fn check(&mut self) {
        self.committing.clear();
        while !self.poll(3, false) {}
        let mut sequenced = self.sequenced.clone();
        sequenced.sort_by_key(Row::key);
        self.committed.sort_by_key(Row::key);
        assert_eq!(sequenced, self.committed, "every committed batch has one position");
        let at = |xid: u64, last: bool| {
            let mut positions =
                self.sequenced.iter().enumerate().filter(|(_, row)| row.xid == xid).map(|(at, _)| at);
            if last { positions.next_back() } else { positions.next() }
        };
        for (first, second) in &self.before {
            if let (Some(first), Some(second)) = (at(*first, true), at(*second, false)) {
                assert!(first < second, "a transaction that committed before another began comes first");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_batch_gets_one_place_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        model.check();
    }

    #[test]
    fn snapshots_survive_their_text(xmax in 3_u64..1_000, running in prop::collection::btree_set(3_u64..1_000, 0..9)) {
        let running: Vec<u64> = running.into_iter().filter(|xid| *xid < xmax).collect();
        let snapshot = Snapshot { xmax, running };
        prop_assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
    }
}

#[test]
fn text_that_is_no_snapshot_is_refused() {
    for text in ["", "3", "3:4", "3:x:", "3:9:5,y"] {
        assert_eq!(text.parse::<Snapshot>(), Err(()), "{text}");
    }
    assert!(SnapshotTracker::new(Snapshot { xmax: 3, running: vec![] }, "3").is_err());
}
