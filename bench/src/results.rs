//! The results, and the file to which they are written.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tailstream_devkit::event::{now_micros, rfc3339};
use tailstream_devkit::repository;

use crate::key::{Goal, KEYS};
use crate::machine::Machine;
use crate::options::Options;
use crate::round::Duel;
use crate::sample::Samples;
use crate::screen::{self, number};
use crate::server::{OURS, Server};

/// One figure and what it comes from, as text for the table.
#[derive(Clone, Debug)]
pub struct Finding {
    pub value: f64,
    pub ours: String,
    /// Empty if it is compared with nothing.
    pub theirs: String,
}

pub struct Results {
    findings: Vec<(&'static str, Finding)>,
    absolute: Vec<(String, f64)>,
    /// The details of the figures, by key.
    details: Map<String, Value>,
    /// Machine, versions, settings.
    circumstances: Map<String, Value>,
}

impl Results {
    pub fn new(options: &Options, samples: &Samples, server: &Server) -> Result<Self> {
        let machine = serde_json::to_value(Machine::detect()?).context("cannot describe the machine")?;
        let settings: Map<String, Value> =
            server.settings().iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let circumstances = [
            ("measured_at", json!(rfc3339(now_micros()))),
            ("quick", json!(options.quick)),
            ("events", json!(samples.origin())),
            ("machine", machine),
            ("versions", versions(server)?),
            ("settings", Value::Object(settings)),
        ];
        Ok(Self {
            findings: Vec::new(),
            absolute: Vec::new(),
            details: Map::new(),
            circumstances: circumstances.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
        })
    }

    /// A ratio of rates.
    pub fn add_duel(&mut self, key: &'static str, unit: &str, duel: &Duel, rows: &Value) {
        let finding = Finding {
            value: duel.ratio(),
            ours: format!("{} {unit}", number(duel.ours.rate())),
            theirs: format!("{} {unit}", number(duel.theirs.rate())),
        };
        self.add_timed(key, finding, duel, rows);
    }

    /// A ratio of times.
    pub fn add_race(&mut self, key: &'static str, duel: &Duel, rows: &Value) {
        let finding = Finding {
            value: duel.ratio(),
            ours: format!("{} s", number(duel.ours.seconds())),
            theirs: format!("{} s", number(duel.theirs.seconds())),
        };
        self.add_timed(key, finding, duel, rows);
    }

    fn add_timed(&mut self, key: &'static str, finding: Finding, duel: &Duel, rows: &Value) {
        let record = |record: &crate::round::Record| {
            json!({
                "what": record.name,
                "median_per_second": record.rate(),
                "median_seconds": record.seconds(),
                "rounds": record.rounds,
            })
        };
        let detail = json!({
            "ours": record(&duel.ours),
            "theirs": record(&duel.theirs),
            "ratio_by_server_cpu": duel.cpu_ratio(),
            "rows": rows,
        });
        self.add(key, finding, detail);
    }

    /// Any figure with a key of its own.
    pub fn add(&mut self, key: &'static str, finding: Finding, detail: Value) {
        let Finding { value, ours, theirs } = &finding;
        screen::say(&match theirs.as_str() {
            "" => format!("{key}: {ours}"),
            theirs => format!("{key}: {value:.2} ({ours} against {theirs})"),
        });
        self.details.insert(key.to_owned(), detail);
        self.findings.push((key, finding));
    }

    /// A figure that is compared with nothing; its name ends with its unit.
    pub fn add_absolute(&mut self, name: &str, value: f64) {
        screen::say(&format!("{name}: {}", number(value)));
        self.absolute.push((name.to_owned(), value));
    }

    pub fn finding(&self, key: &str) -> Option<&Finding> {
        self.findings.iter().find(|(name, _)| *name == key).map(|(_, finding)| finding)
    }

    pub fn absolute(&self) -> Vec<(&str, String)> {
        self.absolute.iter().map(|(name, value)| (name.as_str(), number(*value))).collect()
    }

    /// Whether everything that was measured is what it must be.
    pub fn reaches_all(&self) -> bool {
        KEYS.iter().all(|key| self.finding(key.key).is_none_or(|finding| key.goal.is_reached(finding.value)))
    }

    /// Writes `target/bench/results.json`.
    pub fn save(&self) -> Result<PathBuf> {
        let dir = repository::root()?.join("target/bench");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join("results.json");
        let mut text =
            serde_json::to_string_pretty(&self.to_json()).context("cannot write the results as JSON")?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The figures by their keys, then everything else.
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (key, finding) in &self.findings {
            object.insert((*key).to_owned(), json!(finding.value));
        }
        let goals =
            KEYS.iter().filter_map(|key| Some((key.key.to_owned(), goal(key.goal)?))).collect::<Map<_, _>>();
        let absolute =
            self.absolute.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>();
        object.insert("goals".to_owned(), Value::Object(goals));
        object.insert("absolute".to_owned(), Value::Object(absolute));
        object.insert("details".to_owned(), Value::Object(self.details.clone()));
        object.extend(self.circumstances.clone());
        Value::Object(object)
    }
}

fn goal(goal: Goal) -> Option<Value> {
    match goal {
        Goal::AtLeast { must, aim } => Some(json!({ "must": must, "aim": aim, "better": "higher" })),
        Goal::AtMost { must, aim } => Some(json!({ "must": must, "aim": aim, "better": "lower" })),
        Goal::None => None,
    }
}

fn versions(server: &Server) -> Result<Value> {
    let row = server
        .connect(OURS)?
        .query_one(
            "SELECT current_setting('server_version'), ts_version(),
                    (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
                    current_setting('timescaledb.license', true)",
            &[],
        )
        .context("cannot ask for the versions")?;
    Ok(json!({
        "postgresql": row.get::<_, String>(0),
        "tailstream": row.get::<_, String>(1),
        "timescaledb": row.get::<_, String>(2),
        "timescaledb_license": row.get::<_, Option<String>>(3),
    }))
}
