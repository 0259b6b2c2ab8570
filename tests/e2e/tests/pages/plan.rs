//! Plans of the statements that a function runs inside, as auto_explain reports them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use postgres::{Client, NoTls};
use serde_json::Value;
use tailstream_devkit::cluster::SUPERUSER;
use tailstream_e2e::Database;

/// A node of a plan, and what it did.
#[derive(Debug, Clone)]
pub struct Node {
    pub kind: String,
    pub relation: String,
    pub index_cond: String,
    pub filter: String,
    pub direction: String,
    pub loops: f64,
    /// Rows that it looked at, those included that its filter kept back.
    pub rows: f64,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub nodes: Vec<Node>,
    /// Blocks that executing it touched, cached or not.
    pub buffers: i64,
    /// Whether it was compiled, which takes longer than any page.
    pub compiled: bool,
}

impl Plan {
    /// From what EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) says of one statement.
    pub fn of(explained: &Value) -> Self {
        let top = &explained["Plan"];
        let mut nodes = Vec::new();
        collect(top, &mut nodes);
        let blocks = |name: &str| top[name].as_i64().unwrap_or(0);
        let buffers = blocks("Shared Hit Blocks") + blocks("Shared Read Blocks");
        Self { nodes, buffers, compiled: explained.get("JIT").is_some() }
    }

    /// What was read of these tables.
    pub fn scans<'a>(&'a self, chunks: &'a HashMap<String, Chunk>) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(|node| chunks.contains_key(&node.relation) && node.loops > 0.0)
    }
}

fn collect(node: &Value, into: &mut Vec<Node>) {
    let text = |name: &str| node[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let loops = number("Actual Loops");
    let relation = text("Relation Name");
    let alias = format!("{}.", text("Alias"));
    let condition = |name: &str| text(name).replace(&alias, "");
    into.push(Node {
        kind: text("Node Type"),
        index_cond: condition("Index Cond"),
        filter: condition("Filter"),
        direction: text("Scan Direction"),
        rows: loops
            * (number("Actual Rows")
                + number("Rows Removed by Filter")
                + number("Rows Removed by Index Recheck")),
        relation,
        loops,
    });
    for inner in node["Plans"].as_array().into_iter().flatten() {
        collect(inner, into);
    }
}

/// The time range of a chunk, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    pub start: i64,
    pub end: i64,
}

/// The chunks of events by name.
pub fn chunks(client: &mut Client) -> HashMap<String, Chunk> {
    let sql = "SELECT c.relname::text, (extract(epoch FROM x.range_start) * 1000000)::bigint,
                      (extract(epoch FROM x.range_end) * 1000000)::bigint
               FROM tailstream.chunks('tailstream.events', 'created_at') x JOIN pg_class c ON c.oid = x.chunk";
    let rows = client.query(sql, &[]).expect("chunks");
    rows.iter().map(|row| (row.get(0), Chunk { start: row.get(1), end: row.get(2) })).collect()
}

#[track_caller]
fn check_no_sort(plans: &[Plan], chunks: &HashMap<String, Chunk>) {
    for plan in plans.iter().filter(|plan| plan.scans(chunks).count() > 0) {
        let sorts: Vec<&Node> = plan.nodes.iter().filter(|node| node.kind.contains("Sort")).collect();
        assert!(sorts.is_empty(), "{sorts:?}");
    }
}

/// What was read of the events.
#[track_caller]
pub fn scans<'a>(plans: &'a [Plan], chunks: &'a HashMap<String, Chunk>) -> Vec<&'a Node> {
    let scans: Vec<&Node> = plans.iter().flat_map(|plan| plan.scans(chunks)).collect();
    assert!(!scans.is_empty(), "no scan of events in {plans:#?}");
    scans
}

/// The same, which must have been by the index, in order.
#[track_caller]
pub fn index_scans<'a>(plans: &'a [Plan], chunks: &'a HashMap<String, Chunk>) -> Vec<&'a Node> {
    check_no_sort(plans, chunks);
    let scans = scans(plans, chunks);
    for scan in &scans {
        assert_eq!(scan.kind, "Index Scan", "{scan:?}");
        assert!(scan.index_cond.contains("org_id = "), "{scan:?}");
    }
    scans
}

/// A session that hears of the plan of every statement that is executed for it.
pub struct Observer {
    pub client: Client,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Observer {
    pub fn new(database: &Database) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let plans = Arc::clone(&heard);
        let mut config = database.config(SUPERUSER);
        config.notice_callback(move |notice| plans.lock().expect("plans").push(notice.message().to_owned()));
        let mut client = config.connect(NoTls).expect("a connection");
        client
            .batch_execute(
                "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;
                 SET auto_explain.log_buffers = on; SET auto_explain.log_nested_statements = on;
                 SET auto_explain.log_format = json; SET client_min_messages = log",
            )
            .expect("auto_explain");
        Self { client, heard }
    }

    /// What this has the server execute, inside of the statement that is sent.
    pub fn nested<T>(&mut self, work: impl FnOnce(&mut Client) -> T) -> (T, Vec<Plan>) {
        self.heard.lock().expect("plans").clear();
        let result = work(&mut self.client);
        let heard = self.heard.lock().expect("plans");
        let mut plans: Vec<Plan> = heard
            .iter()
            .filter_map(|message| message.split_once("plan:\n"))
            .map(|(_, json)| Plan::of(&serde_json::from_str(json).expect("a plan in JSON")))
            .collect();
        // The last to end is the one that was sent.
        plans.pop().expect("auto_explain says nothing");
        (result, plans)
    }
}
