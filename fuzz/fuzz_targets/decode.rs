//! Throws arbitrary text at the event decoder and checks what must hold for any.

#![no_main]

use tailstream_event::{Clock, Decoded, Event, EventColumns, EventError, Format, OnInvalid, decode, encode};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// Lets every instant pass, so that the fuzzer sees all of the code behind it.
const CLOCK: Clock = Clock {
    now: 0,
    max_future: i64::MAX,
};

fuzz_target!(|text: &str| {
    for format in [Format::Json, Format::NdJson] {
        let strict = decode(format, text, &CLOCK, OnInvalid::Error);
        let lenient = decode(format, text, &CLOCK, OnInvalid::Quarantine);
        if let Err(error) = &strict {
            check_error(error);
        }
        match &lenient {
            Ok(batch) => {
                check_batch(text, batch);
                assert_eq!(strict.is_ok(), batch.rejected.is_empty());
            }
            Err(error) => {
                check_error(error);
                assert_eq!(format, Format::Json, "lines fail one by one");
                assert!(strict.is_err());
            }
        }
    }
});

fn check_error(error: &EventError) {
    let state = error.sqlstate();
    assert!(state.len() == 5 && (state.starts_with("22") || state.starts_with("23")));
    assert!(error.to_string().len() < 1000);
    let _ = (error.detail(), error.hint());
}

fn check_batch(text: &str, batch: &Decoded<'_>) {
    for (at, rejection) in batch.rejected.iter().enumerate() {
        assert!(text.contains(rejection.raw));
        assert!(rejection.index >= at);
        assert_eq!(rejection.error.event, Some(rejection.index));
        check_error(&rejection.error);
    }
    batch.events.iter().for_each(check_event);
}

/// The event has valid metadata, and is the same when encoded and decoded again.
fn check_event(event: &Event<'_>) {
    let encoded = encode(&columns(event));
    let again = decode(Format::Json, &encoded, &CLOCK, OnInvalid::Error);
    let again = again.unwrap_or_else(|error| panic!("{error} in {encoded}"));
    let [again] = again.events.as_slice() else {
        panic!("one event became {}", again.events.len());
    };
    assert_eq!(members(again), members(event));
    let metadata = event.metadata.clone();
    assert_eq!(
        &Event {
            metadata,
            ..again.clone()
        },
        event
    );
}

/// The metadata as `jsonb` sees it: order does not count. Numbers whose value only `numeric` holds
/// cannot be compared here.
fn members(event: &Event<'_>) -> Option<Map<String, Value>> {
    let metadata = event.metadata.as_deref()?;
    assert!(metadata.starts_with('{') && metadata.ends_with('}'));
    match serde_json::from_str(metadata) {
        Ok(members) => Some(members),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(error) => panic!("{error} in {metadata}"),
    }
}

fn columns<'a>(event: &'a Event<'_>) -> EventColumns<'a> {
    EventColumns {
        created_at: event.created_at,
        host: event.host.as_deref(),
        method: Some(&event.method),
        path: Some(&event.path),
        status: Some(event.status),
        response_time: event.response_time,
        response_size: event.response_size,
        user_agent: event.user_agent.as_deref(),
        referrer: event.referrer.as_deref(),
        ip_address: event.ip_address,
        metadata: event.metadata.as_deref(),
    }
}
