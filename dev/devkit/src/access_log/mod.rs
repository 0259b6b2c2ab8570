//! Access logs of Apache and nginx, in the common and the combined format.

mod line;
mod reader;

use crate::event::{Event, rfc3339};

pub use line::{ParseError, parse};
pub use reader::{Contents, open_log, read_log};

/// One request as an access log tells it; `None` is what the log writes as `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEvent {
    /// Microseconds since the epoch.
    pub created_at: i64,
    /// The client's address, or its name where the server looks names up.
    pub remote: String,
    pub user: Option<String>,
    /// `-` when the request line was no HTTP request.
    pub method: String,
    /// The whole request line when it was no HTTP request.
    pub path: String,
    pub protocol: Option<String>,
    pub status: u16,
    pub bytes: Option<u64>,
    pub referrer: Option<String>,
    pub user_agent: Option<String>,
}

impl AccessEvent {
    /// The event as Tailstream ingests it; `host` is the server that wrote the log.
    pub fn event<'a>(&'a self, host: &'a str) -> Event<'a> {
        let (ip_address, remote_host) = Event::remote(&self.remote);
        Event {
            created_at: rfc3339(self.created_at),
            host,
            method: &self.method,
            path: &self.path,
            status: self.status,
            response_time: None,
            response_size: self.bytes,
            user_agent: self.user_agent.as_deref(),
            referrer: self.referrer.as_deref(),
            ip_address,
            remote_host,
            protocol: self.protocol.as_deref(),
            user: self.user.as_deref(),
        }
    }

    pub fn to_json(&self, host: &str) -> anyhow::Result<String> {
        self.event(host).to_json()
    }
}

/// Moves all events so that the latest happens now, with the gaps between them kept.
pub fn shift_to_now(events: &mut [AccessEvent]) {
    shift_to(events, crate::event::now_micros());
}

/// Moves all events so that the latest happens at `end` (microseconds since the epoch). Logs are
/// written when a request ends, so the latest is not always the last.
pub fn shift_to(events: &mut [AccessEvent], end: i64) {
    let Some(latest) = events.iter().map(|event| event.created_at).max() else {
        return;
    };
    let offset = end.saturating_sub(latest);
    for event in events {
        event.created_at = event.created_at.saturating_add(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"h.example - al [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 9"#;

    #[test]
    fn json_has_the_keys_of_ingest() {
        let event = parse(LINE).unwrap();
        let json: serde_json::Value = serde_json::from_str(&event.to_json("web-01").unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "created_at": "2015-05-17T10:05:03.000000Z", "host": "web-01", "method": "GET", "path": "/",
                "status": 200, "response_size": 9, "remote_host": "h.example", "protocol": "HTTP/1.1", "user": "al"
            })
        );
    }

    #[test]
    fn an_address_is_an_address() {
        let event = AccessEvent { remote: "2001:db8::1".to_owned(), ..parse(LINE).unwrap() };
        let json = event.to_json("h").unwrap();
        assert!(json.contains(r#""ip_address":"2001:db8::1""#) && !json.contains("remote_host"));
    }

    #[test]
    fn shifting_keeps_gaps_and_ends_at_the_latest() {
        let event = parse(LINE).unwrap();
        let at = |created_at| AccessEvent { created_at, ..event.clone() };
        let mut events = [at(5), at(9), at(7)];
        shift_to(&mut events, 100);
        assert_eq!(events.map(|event| event.created_at), [96, 100, 98]);
        shift_to_now(&mut []);
    }
}
