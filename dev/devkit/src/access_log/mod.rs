//! Access logs: read whole, moved in time, and as the events that Tailstream ingests.

mod reader;

pub use tailstream_log_lines::access_log::{AccessEvent, parse};

pub use reader::{Contents, open_log, read_log};

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
    use crate::event::Event;

    const LINE: &[u8] = br#"h.example - al [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 9"#;

    #[test]
    fn json_has_the_keys_of_ingest() {
        let event = parse(LINE).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&Event::of(&event, "web-01").to_json().unwrap()).unwrap();
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
        let json = Event::of(&event, "h").to_json().unwrap();
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
