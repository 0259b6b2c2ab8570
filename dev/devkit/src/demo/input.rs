//! The input of the demo: a log, or generated traffic.

use std::path::Path;

use anyhow::{Result, bail};
use tailstream_devkit::access_log::{AccessEvent, Contents, read_log, shift_to_now};
use tailstream_devkit::event::{Event, now_micros};
use tailstream_devkit::repository::fnv1a;
use tailstream_devkit::traffic::Traffic;

use super::screen::grouped;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

/// The generated traffic: a day for the premium org, almost three hours for the others.
/// A few minutes less, so that nothing expires between its making and its ingest.
const PREMIUM_SPAN: i64 = 24 * HOUR;
const STANDARD_SPAN: i64 = 3 * HOUR - 3 * MINUTE;
const PREMIUM_EVENTS: u64 = 30_000;
const STANDARD_EVENTS: u64 = 60_000;
const SEED: u64 = 17;

/// The org on tier premium from the start.
pub const PREMIUM: &str = "acme";
/// The org that is upgraded on the way.
pub const UPGRADED: &str = "globex";
/// An org that stays on tier standard.
pub const STANDARD: &str = "initech";

/// An org and its events, each a JSON object, in the order of their arrival.
pub struct OrgEvents {
    pub org: &'static str,
    pub events: Vec<String>,
}

pub struct Input {
    pub orgs: Vec<OrgEvents>,
    /// Where it comes from, for people.
    pub origin: String,
    /// Whether orgs on tier standard have events of at least two hours ago.
    pub reaches_back: bool,
}

impl Input {
    pub fn made_up() -> Result<Self> {
        let now = now_micros();
        let mut orgs = orgs(&[PREMIUM, UPGRADED, STANDARD, "umbrella"]);
        for request in Traffic::new(SEED, 1, now - PREMIUM_SPAN, now, PREMIUM_EVENTS) {
            orgs[0].events.push(request.to_json()?);
        }
        for request in Traffic::new(SEED + 1, orgs.len() - 1, now - STANDARD_SPAN, now, STANDARD_EVENTS) {
            orgs[1 + request.org].events.push(request.to_json()?);
        }
        let origin = format!(
            "Made-up web traffic of {} orgs: {} requests of the last 24 hours for {PREMIUM}, {} of the last 3 hours for the others.\n\
             Your own log instead: make demo LOG=/var/log/nginx/access.log",
            orgs.len(),
            grouped(PREMIUM_EVENTS),
            grouped(STANDARD_EVENTS)
        );
        Ok(Self { orgs, origin, reaches_back: true })
    }

    /// Splits a log over several orgs by the client's address, so that each visitor belongs to one.
    pub fn from_log(path: &Path) -> Result<Self> {
        let mut contents = read_log(path)?;
        let origin = describe(path, &contents);
        if contents.events.is_empty() {
            bail!("{origin}\nThere is nothing to show: give a log in the common or combined format, or none");
        }
        shift_to_now(&mut contents.events);
        let mut orgs = orgs(&[PREMIUM, UPGRADED, STANDARD]);
        let count = orgs.len() as u64;
        let now = now_micros();
        let standard_span = now - STANDARD_SPAN..now - 2 * HOUR;
        let mut reaches_back = false;
        for event in &contents.events {
            let share = (fnv1a(event.remote.as_bytes()) % count) as usize;
            orgs[share].events.push(Event::of(event, "web-01").to_json()?);
            reaches_back |= share > 0 && standard_span.contains(&event.created_at);
        }
        Ok(Self {
            orgs,
            origin: origin
                + "\nTheir times are shifted so that the last is now; each client's address belongs to one of three orgs.",
            reaches_back,
        })
    }
}

fn orgs(names: &[&'static str]) -> Vec<OrgEvents> {
    names.iter().map(|org| OrgEvents { org, events: Vec::new() }).collect()
}

fn describe(path: &Path, contents: &Contents) -> String {
    let source =
        if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let mut text = format!(
        "{} lines of {source} are requests{}; lines that are no access-log lines: {}",
        grouped(contents.events.len() as u64),
        span(&contents.events),
        grouped(contents.unparseable)
    );
    if let Some((number, reason)) = &contents.first_unparseable {
        text += &format!(" (the first is line {number}: {reason})");
    }
    text + "."
}

fn span(events: &[AccessEvent]) -> String {
    let times = || events.iter().map(|event| event.created_at);
    match (times().min(), times().max()) {
        (Some(first), Some(last)) => {
            format!(", over {:.1} hours", (last - first) as f64 / HOUR as f64)
        }
        _ => String::new(),
    }
}
