//! The events that are stored: those of an access log, or made-up traffic. They are repeated with
//! new times for as many as a comparison needs.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, bail};
use tailstream_devkit::Event;
use tailstream_devkit::access_log::{AccessEvent, read_log};
use tailstream_devkit::event::rfc3339;
use tailstream_devkit::traffic::{Request, Traffic};

/// As many as the usual sample logs have.
const MADE_UP: u64 = 10_000;
const SEED: u64 = 42;
const HOUR_MICROS: i64 = 3_600_000_000;

/// An event without its time.
#[derive(Clone, Debug)]
pub struct Sample {
    pub host: String,
    pub method: String,
    pub path: String,
    pub status: u16,
    pub response_time: Option<u32>,
    pub response_size: Option<u64>,
    pub user_agent: Option<String>,
    pub referrer: Option<String>,
    pub ip_address: Option<IpAddr>,
}

/// All there are.
#[derive(Debug)]
pub struct Samples {
    all: Vec<Sample>,
    origin: String,
    per_hour: f64,
}

impl Samples {
    pub fn load(log: Option<&Path>) -> Result<Self> {
        let Some(log) = log else {
            let traffic = Traffic::new(SEED, 1, 0, HOUR_MICROS, MADE_UP);
            return Ok(Self {
                all: traffic.map(Sample::from).collect(),
                origin: format!("Events: {MADE_UP} made-up requests, repeated"),
                per_hour: MADE_UP as f64,
            });
        };
        let contents = read_log(log)?;
        if contents.events.is_empty() {
            bail!("{} holds no access-log line; give another log", log.display());
        }
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        let origin = format!("Events: {} lines of {name}, repeated", contents.events.len());
        let times = contents.events.iter().map(|event| event.created_at);
        let span = times.clone().max().unwrap_or_default() - times.min().unwrap_or_default();
        // A log of less than a minute tells little of an hour.
        let hours = span.max(HOUR_MICROS / 60) as f64 / HOUR_MICROS as f64;
        let per_hour = contents.events.len() as f64 / hours;
        Ok(Self { all: contents.events.into_iter().map(Sample::from).collect(), origin, per_hour })
    }

    /// Where they are from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Their mean rate.
    pub fn per_hour(&self) -> f64 {
        self.per_hour
    }

    pub fn get(&self, index: usize) -> &Sample {
        &self.all[index % self.all.len()]
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }
}

impl Sample {
    /// The event as it is ingested: whatever of it has a column, so that no contender stores more
    /// of it than the others.
    pub fn to_json(&self, created_at: i64, ip_address: Option<&str>) -> Result<String> {
        Event {
            created_at: rfc3339(created_at),
            host: &self.host,
            method: &self.method,
            path: &self.path,
            status: self.status,
            response_time: self.response_time,
            response_size: self.response_size,
            user_agent: self.user_agent.as_deref(),
            referrer: self.referrer.as_deref(),
            ip_address,
            remote_host: None,
            protocol: None,
            user: None,
        }
        .to_json()
    }
}

impl From<AccessEvent> for Sample {
    fn from(event: AccessEvent) -> Self {
        Self {
            host: "web-01".to_owned(),
            // The plan's column takes ten characters.
            method: event.method.chars().take(10).collect(),
            path: event.path,
            status: event.status,
            response_time: None,
            response_size: event.bytes,
            user_agent: event.user_agent,
            referrer: event.referrer,
            ip_address: event.remote.parse().ok(),
        }
    }
}

impl From<Request> for Sample {
    fn from(request: Request) -> Self {
        Self {
            host: request.host.to_owned(),
            method: request.method.to_owned(),
            path: request.path,
            status: request.status,
            response_time: Some(request.response_time),
            response_size: Some(request.response_size),
            user_agent: Some(request.user_agent.to_owned()),
            referrer: request.referrer.map(str::to_owned),
            ip_address: request.ip_address.parse().ok(),
        }
    }
}
