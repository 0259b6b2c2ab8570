use super::super::super::{MAX_BATCH_EVENTS, MAX_DEPTH, MAX_EVENT_BYTES};
use super::*;

#[test]
fn refuses_duplicate_keys_anywhere() {
    let duplicate = |text: &str| {
        let (state, message) = error(text);
        assert_eq!(state, "22030", "{text}");
        message
    };
    assert_eq!(
        duplicate(r#"{"path":"a","\u0070ath":"b"}"#),
        "event 0: field \"path\": duplicate key \"path\""
    );
    assert_eq!(duplicate(r#"{"x":1,"x":1}"#), "event 0: duplicate key \"x\"");
    assert_eq!(
        duplicate(r#"{"metadata":{"x":1,"\u0078":1}}"#),
        "event 0: field \"metadata\": duplicate key \"x\""
    );
    assert_eq!(
        duplicate(r#"{"y":[{"a":{"x":1,"b":2,"x":3}}]}"#),
        "event 0: field \"y\": duplicate key \"x\""
    );
    duplicate(r#"{"metadata":null,"metadata":{}}"#);
    duplicate(r#"{"metadata":{},"metadata":[]}"#);
    duplicate(r#"{"ts":null,"ts":null}"#);
    let many: String = (0..1000).map(|n| format!("\"k{n}\":0,")).collect();
    duplicate(&format!("{{\"m\":{{{many}\"k7\":1}}}}"));
    duplicate(&format!("{{{many}\"k7\":1}}"));
    duplicate(&format!("{{\"metadata\":{{{many}\"k7\":1}}}}"));
    events(r#"{"x":{"a":{"a":1}},"a":[{"a":1},{"a":1}],"ts":1,"timestamp":1}"#);
}

#[test]
fn refuses_characters_that_text_cannot_hold() {
    for (escape, state) in
        [("\\u0000", "22P05"), ("\\ud800", "22P02"), ("\\udc00", "22P02"), ("\\ud800\\ud800", "22P02")]
    {
        for text in [
            format!("{{\"host\":\"{escape}\"}}"),
            format!("{{\"{escape}\":1}}"),
            format!("{{\"x\":\"{escape}\"}}"),
            format!("{{\"x\":[{{\"{escape}\":1}}]}}"),
            format!("{{\"metadata\":{{\"x\":\"{escape}\"}}}}"),
            format!("{{\"metadata\":\"{escape}\"}}"),
            format!("{{\"rt\":\"{escape}\",\"response_time\":1}}"),
        ] {
            assert_eq!(error(&text).0, state, "{text}");
        }
    }
    assert_eq!(event(r#"{"host":"\ud83e\udd80\u0001"}"#).host.as_deref(), Some("🦀\u{1}"));
}

#[test]
fn refuses_numbers_beyond_numeric() {
    for text in
        [r#"{"x":1e200000}"#, r#"{"x":[1e-16384]}"#, r#"{"metadata":{"x":-1e131072}}"#, r#"{"rt":1e200000}"#]
    {
        assert_eq!(error(text).0, "22003", "{text}");
    }
    assert!(error(r#"{"x":NaN}"#).1.contains("invalid JSON"));
    assert_eq!(metadata(r#"{"x":[1e400]}"#).as_deref(), Some(r#"{"x":[1e400]}"#));
    let nines = "9".repeat(131_073);
    assert_eq!(error(&format!("{{\"x\":{nines}}}")).0, "22003");
}

#[test]
fn counts_numbers_as_jsonb_writes_them() {
    // Nine bytes each, 128 KiB each when read back.
    let numbers = vec!["1e131071"; 3000].join(",");
    let (state, message) = error(&format!("{{\"x\":[{numbers}]}}"));
    assert_eq!(state, "22023");
    assert_eq!(
        message,
        format!("event 0: field \"metadata\": metadata has more than {MAX_EVENT_BYTES} bytes")
    );
}

#[test]
fn bounds_depth_and_not_by_the_stack() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let deepest = nested(MAX_DEPTH - 1);
    for frame in [["{\"x\":", "}"], ["{\"metadata\":{\"x\":", "}}"]] {
        events(&format!("{}{deepest}{}", frame[0], frame[1]));
        assert_eq!(error(&format!("{}[{deepest}]{}", frame[0], frame[1])).0, "22023");
    }
    let bomb = format!("[{{}},{},{{}}]", nested(2_000_000));
    let batch = decode(Format::Json, &bomb, &CLOCK, OnInvalid::Quarantine).unwrap();
    assert_eq!((batch.events.len(), batch.rejected[0].raw.len()), (2, 4_000_000));
    for open in ["[", "{\"a\":", "[{\"a\":["] {
        let bomb = open.repeat(3_000_000);
        for format in [Format::Json, Format::NdJson] {
            assert!(decode(format, &bomb, &CLOCK, OnInvalid::Error).is_err());
            let _ = decode(format, &bomb, &CLOCK, OnInvalid::Quarantine);
        }
    }
}

#[test]
fn bounds_the_number_of_events() {
    let most = "{}\n".repeat(MAX_BATCH_EVENTS);
    let batch = decode(Format::NdJson, &most, &CLOCK, OnInvalid::Error).unwrap();
    assert_eq!(batch.events.len(), MAX_BATCH_EVENTS);
    for more in [format!("{most}{{}}"), "1\n".repeat(MAX_BATCH_EVENTS + 1)] {
        let error = decode(Format::NdJson, &more, &CLOCK, OnInvalid::Quarantine).unwrap_err();
        assert_eq!(error.to_string(), "the batch has more than 1000000 events");
        assert_eq!(error.sqlstate(), "22023");
    }
    let array = format!("[{}{{}}]", "{},".repeat(MAX_BATCH_EVENTS));
    assert_eq!(error(&array).0, "22023");
}

#[test]
#[ignore = "needs about 1 GiB of memory"]
fn bounds_the_size_of_an_event() {
    let long = format!("{{\"path\":\"{}\"}}", "x".repeat(MAX_EVENT_BYTES));
    assert_eq!(error(&long).0, "22023");
    assert_eq!(rejected(Format::Json, &format!("[{long},{{}}]"))[0].0, 0);
}
