//! One web request in the form in which Tailstream ingests it.

use std::net::IpAddr;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::access_log::AccessEvent;

/// The JSON object handed to `ts_ingest`; what is absent is left out.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Event<'a> {
    pub created_at: String,
    pub host: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_time: Option<u32>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referrer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// The event of a request in an access log; `host` is the server that wrote the log.
    pub fn of(request: &'a AccessEvent, host: &'a str) -> Self {
        let (ip_address, remote_host) = Self::remote(&request.remote);
        Self {
            created_at: rfc3339(request.created_at),
            host,
            method: &request.method,
            path: &request.path,
            status: request.status,
            response_time: None,
            response_size: request.bytes,
            user_agent: request.user_agent.as_deref(),
            referrer: request.referrer.as_deref(),
            ip_address,
            remote_host,
            protocol: request.protocol.as_deref(),
            user: request.user.as_deref(),
        }
    }

    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("cannot write an event as JSON")
    }

    /// Splits what a log calls the remote host into the keys `ip_address` and `remote_host`.
    pub fn remote(remote: &'a str) -> (Option<&'a str>, Option<&'a str>) {
        match remote.parse::<IpAddr>() {
            Ok(_) => (Some(remote), None),
            Err(_) => (None, Some(remote)),
        }
    }
}

/// Microseconds since the epoch as RFC 3339 in UTC with microseconds; what lies outside the
/// calendar becomes its nearest end.
pub fn rfc3339(micros: i64) -> String {
    let nearest_end = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let time = Timestamp::from_microsecond(micros).unwrap_or(nearest_end);
    format!("{time:.6}")
}

/// Now, in microseconds since the epoch.
pub fn now_micros() -> i64 {
    Timestamp::now().as_microsecond()
}

/// Joins objects that are JSON already into one array, the shape of a batch.
pub fn json_array<S: AsRef<str>>(objects: &[S]) -> String {
    let mut array = String::from("[");
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            array.push(',');
        }
        array.push_str(object.as_ref());
    }
    array.push(']');
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_microseconds_and_z() {
        assert_eq!(rfc3339(1_431_857_103_000_000), "2015-05-17T10:05:03.000000Z");
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.000001Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
        assert!(!rfc3339(i64::MAX).is_empty());
        assert!(!rfc3339(i64::MIN).is_empty());
    }

    #[test]
    fn arrays_are_json() {
        assert_eq!(json_array::<&str>(&[]), "[]");
        assert_eq!(json_array(&["{}", "{}"]), "[{},{}]");
    }
}
