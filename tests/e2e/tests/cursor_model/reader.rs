//! A reader: a cursor, the connection that uses it, and where the model says it is.

use std::time::Duration;

use postgres::{Client, Error};
use tailstream_e2e::cursor::{Fetched, fetch, ids};
use tailstream_e2e::database::one;
use tailstream_e2e::{Database, eventually, refused};

use crate::model::{FIRST, Filter, Key, Model, Order};
use crate::sight::{Got, Sight, State};

/// Rows that a fetch gave, which may be acknowledged as long as nobody sends the cursor elsewhere.
struct Page {
    rows: Vec<Fetched>,
    /// What was to be seen when it was fetched.
    sight: Sight,
    /// Behind them there was nothing.
    complete: bool,
    /// Nothing was acknowledged since.
    newest: bool,
}

pub struct Reader {
    pub name: String,
    pub org: usize,
    pub order: Order,
    pub filter: Filter,
    pub client: Client,
    /// As committed, and as the transaction has it that is open.
    state: State,
    open: Option<State>,
    /// What the open transaction has done with the cursor.
    held: bool,
    sent: bool,
    page: Option<Page>,
    /// A token from before the last seek.
    stale: Option<String>,
    /// Committed consumption, event by event.
    pub consumed: Vec<i64>,
    unsettled: Vec<i64>,
    sought: bool,
    pub gaps: usize,
}

fn got(rows: &[Fetched]) -> Vec<Got> {
    rows.iter().map(|row| row.id.map_or(Got::Gap, Got::Event)).collect()
}

impl Reader {
    pub fn create(
        database: &Database,
        model: &Model,
        name: &str,
        org: usize,
        order: Order,
        filter: Filter,
    ) -> Self {
        let mut client = database.connect();
        let sql = format!(
            "SELECT ts_cursor_create('{name}', '{}', filter => '{}', order_by => '{}')",
            model.orgs[org].name,
            filter.json(),
            order.name()
        );
        client.batch_execute(&sql).expect("a cursor");
        let state = Sight::new(model, org, order, filter).start(FIRST, false);
        let name = name.to_owned();
        Self {
            name,
            org,
            order,
            filter,
            client,
            state,
            open: None,
            held: false,
            sent: false,
            page: None,
            stale: None,
            consumed: Vec::new(),
            unsettled: Vec::new(),
            sought: false,
            gaps: 0,
        }
    }

    pub fn sight(&self, model: &Model) -> Sight {
        Sight::new(model, self.org, self.order, self.filter)
    }

    /// Whether others have to wait for it.
    pub fn holds(&self) -> bool {
        self.held
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn state(&self) -> &State {
        self.open.as_ref().unwrap_or(&self.state)
    }

    fn moved(&mut self, state: State, consumed: &[i64]) {
        let list = if self.is_open() { &mut self.unsettled } else { &mut self.consumed };
        list.extend(consumed);
        match &mut self.open {
            Some(open) => *open = state,
            None => self.state = state,
        }
    }

    /// Calls a fetch and holds it against the model once `learn` has made that complete.
    pub fn fetch(
        &mut self,
        model: &mut Model,
        n: usize,
        auto_ack: bool,
        exact: bool,
        learn: impl FnOnce(&mut Model),
    ) {
        let call = format!("'{}', {n}, auto_ack => {auto_ack}", self.name);
        let rows = fetch(&mut self.client, &call).unwrap_or_else(|error| panic!("{call}: {error:?}"));
        learn(model);
        let (sight, seen) = (self.sight(model), got(&rows));
        let gaps = seen.iter().filter(|row| **row == Got::Gap).count();
        println!(
            "{} fetches {} rows of {n}, {gaps} gaps, auto_ack {auto_ack}",
            self.title(model),
            seen.len()
        );
        if let Err(wrong) = sight.check(self.state(), &seen, n, exact) {
            panic!(
                "{} by {:?}, n {n}: {wrong}; at {:?} it got {seen:?}",
                self.name,
                self.order,
                self.state()
            );
        }
        self.gaps += gaps;
        let complete = exact && ids(&rows).len() < n;
        if auto_ack {
            if let Some(last) = seen.len().checked_sub(1) {
                let next = sight.advance(self.state(), &seen, last, complete);
                self.moved(next, &ids(&rows));
            }
            self.page = None;
        } else {
            self.page = Some(Page { rows, sight, complete, newest: true });
        }
        self.held = self.is_open();
    }

    /// Acknowledges some row of the last fetch.
    pub fn ack(&mut self, choose: impl FnOnce(usize) -> usize) {
        let Some(mut page) = self.page.take() else {
            return;
        };
        if page.rows.is_empty() {
            return;
        }
        let (sight, seen) = (&page.sight, got(&page.rows));
        let row = choose(seen.len());
        let key = page.rows[row].id.and_then(|id| sight.key(id));
        // Of a gap nobody but the cursor knows where it ends.
        if key.is_none() && !page.newest {
            return;
        }
        let moves = key.is_none_or(|key| key > self.state().position);
        let sql = "SELECT ts_cursor_ack($1, $2)";
        let moved: bool = self
            .client
            .query_one(sql, &[&self.name, &page.rows[row].cursor])
            .unwrap_or_else(|error| panic!("{}: {error:?}", self.name))
            .get(0);
        assert_eq!(moved, moves, "{}: an ack of row {row} of {seen:?} at {:?}", self.name, self.state());
        if moves {
            let before = self.state().position;
            let next = sight.advance(self.state(), &seen, row, page.complete);
            let new = |id: &i64| sight.key(*id).is_some_and(|key| key > before);
            let consumed: Vec<i64> = ids(&page.rows[..=row]).into_iter().filter(new).collect();
            self.moved(next, &consumed);
        }
        page.newest = false;
        self.page = Some(page);
        self.held = self.is_open();
    }

    pub fn begin(&mut self) {
        self.client.batch_execute("BEGIN").expect("begin");
        self.open = Some(self.state.clone());
    }

    /// Ends the transaction; what was fetched in it may still be acknowledged.
    pub fn end(&mut self, commit: bool) {
        self.client.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" }).expect("the end");
        self.settle(commit);
    }

    fn settle(&mut self, commit: bool) {
        let (open, unsettled) = (self.open.take(), std::mem::take(&mut self.unsettled));
        if self.sent && !commit {
            // What came after a seek that is undone counts as little as what came before one.
            self.page = None;
        }
        (self.held, self.sent) = (false, false);
        if let (Some(open), true) = (open, commit) {
            self.state = open;
            self.consumed.extend(unsettled);
        }
        if let Some(page) = &mut self.page {
            page.newest = false;
        }
    }

    /// The connection is gone, amid a transaction or not, and the reader has forgotten what it had fetched.
    pub fn disconnect(&mut self, database: &Database) {
        let pid: i32 = one(&mut self.client, "SELECT pg_backend_pid()");
        self.client = database.connect();
        let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        eventually("the session to be gone", Duration::from_secs(15), || {
            (one::<i64>(&mut self.client, &there) == 0).then_some(())
        });
        self.settle(false);
        self.page = None;
    }

    /// What a log calls it.
    fn title(&self, model: &Model) -> String {
        format!("reader {} of {} by {}", self.name, model.orgs[self.org].name, self.order.name())
    }

    /// Sends the cursor somewhere, an SQL expression, where the model then has it.
    pub fn seek(&mut self, start: &str, state: State) {
        println!("reader {} is sent to {start}", self.name);
        let sql = format!("SELECT ts_cursor_seek('{}', {start})", self.name);
        self.client.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        self.moved(state, &[]);
        let old = self.page.take().and_then(|page| page.rows.into_iter().next());
        if let (Some(row), false) = (old, self.is_open()) {
            self.stale = Some(row.cursor);
        }
        self.sought = true;
        (self.held, self.sent) = (self.is_open(), self.is_open());
    }

    /// A seek to a time before the retention is refused, and changes nothing.
    pub fn seek_too_early(&mut self, start: &str) {
        if !self.is_open() {
            let sql = format!("SELECT ts_cursor_seek('{}', {start})", self.name);
            refused(&sql, self.client.batch_execute(&sql), &["22008"]);
        }
    }

    /// An ack of what was fetched before a seek is refused.
    pub fn ack_stale(&mut self) {
        if let (Some(token), false) = (&self.stale, self.is_open()) {
            let sql = "SELECT ts_cursor_ack($1, $2)";
            let tried: Result<_, Error> = self.client.query_one(sql, &[&self.name, token]);
            refused("an ack from before a seek", tried, &["55000"]);
        }
    }

    /// Somebody else cannot have the cursor while a transaction has it.
    pub fn check_lock(&self, other: &mut Client) {
        let tried = fetch(other, &format!("'{}', 1, nowait => true", self.name));
        refused("a cursor in use", tried, &["55P03"]);
    }

    /// A token of an event, with which event it is.
    pub fn token(&self) -> Option<(String, i64)> {
        let row = self.page.as_ref()?.rows.iter().find(|row| row.id.is_some())?;
        Some((row.cursor.clone(), row.id?))
    }

    /// Without a seek everything was consumed once and in order, over all fetches.
    pub fn check_consumed(&self, model: &Model) {
        let sight = self.sight(model);
        let keys: Vec<Key> = self.consumed.iter().map(|id| sight.key(*id).expect("a place")).collect();
        let ordered = keys.is_sorted_by(|earlier, later| earlier < later);
        assert!(self.sought || ordered, "{}: consumed twice or in another order", self.name);
    }
}
