use super::super::super::Inet;
use super::*;

#[test]
fn fills_in_defaults() {
    let expected = Event {
        created_at: CLOCK.now,
        host: None,
        method: "GET".into(),
        path: "/".into(),
        status: 200,
        response_time: None,
        response_size: None,
        user_agent: None,
        referrer: None,
        ip_address: None,
        metadata: None,
    };
    assert_eq!(event("{}"), expected);
    let nulls = r#"{"created_at":null,"ts":null,"host":null,"method":null,"path":null,"status":null,
        "response_time":null,"rt":null,"bytes":null,"user_agent":null,"referrer":null,"ip":null,"metadata":null}"#;
    assert_eq!(event(nulls), expected);
}

#[test]
fn reads_what_shippers_send() {
    let event = event(
        r#"{"ts":"2024-03-15T10:30:45.123456+00:00","host":"web-01","path":"/api/users","method":"POST","status":201,
        "rt":0.245,"bytes":1024,"src":"192.168.1.100","ip":"192.168.1.1","user_agent":"a \"b\" \u00e9"}"#,
    );
    let expected = Event {
        created_at: 1_710_498_645_123_456,
        host: Some("web-01".into()),
        method: "POST".into(),
        path: "/api/users".into(),
        status: 201,
        response_time: Some(245),
        response_size: Some(1024),
        user_agent: Some("a \"b\" é".into()),
        referrer: None,
        ip_address: Some(Inet::V4([192, 168, 1, 1], 32)),
        metadata: Some(r#"{"src":"192.168.1.100"}"#.to_owned()),
    };
    assert_eq!(event, expected);
}

#[test]
fn reads_canonical_names_and_escaped_ones() {
    let event = event(
        r#"{"created_at":1710504000.5,"response_time":12,"response_size":9223372036854775807,"ip_address":"::1/64",
        "referrer":"r","\u0070ath":"\/x"}"#,
    );
    assert_eq!(event.created_at, CLOCK.now + 500_000);
    assert_eq!(event.response_time, Some(12));
    assert_eq!(event.response_size, Some(i64::MAX));
    assert!(matches!(event.ip_address, Some(Inet::V6(_, 64))));
    assert_eq!(event.referrer.as_deref(), Some("r"));
    assert_eq!(event.path, "/x");
    assert_eq!(event.metadata, None);
}

#[test]
fn takes_integers_however_written() {
    for (text, status) in
        [("2e2", 200), ("200.0", 200), ("-0", 0), ("2147483647", i32::MAX), ("-21474836480e-1", i32::MIN)]
    {
        assert_eq!(event(&format!("{{\"status\":{text}}}")).status, status);
    }
    assert_eq!(event("{\"bytes\":1e18}").response_size, Some(1_000_000_000_000_000_000));
}

#[test]
fn names_field_value_and_place() {
    for (text, state, message) in [
        (r#"{"status":"abc"}"#, "22P02", "event 0: field \"status\": expected an integer, found \"abc\""),
        (r#"{"status":200.5}"#, "22P02", "event 0: field \"status\": expected an integer, found 200.5"),
        (
            r#"{"status":2147483648}"#,
            "22003",
            "event 0: field \"status\": 2147483648 is out of range for type integer",
        ),
        (
            r#"{"bytes":9223372036854775808}"#,
            "22003",
            "event 0: field \"bytes\": 9223372036854775808 is out of range for type bigint",
        ),
        (r#"{"bytes":true}"#, "22P02", "event 0: field \"bytes\": expected an integer, found true"),
        (r#"{"rt":"0.2"}"#, "22P02", "event 0: field \"rt\": expected a number, found \"0.2\""),
        (r#"{"rt":1e400}"#, "22003", "event 0: field \"rt\": 1e400 is out of range for type integer"),
        (
            r#"{"response_time":2147483647.5}"#,
            "22003",
            "event 0: field \"response_time\": 2147483647.5 is out of range for type integer",
        ),
        (r#"{"path":5}"#, "22P02", "event 0: field \"path\": expected a string, found 5"),
        (r#"{"host":{"a":[1]}}"#, "22P02", "event 0: field \"host\": expected a string, found {\"a\":[1]}"),
        (r#"{"ip":"1.2.3"}"#, "22P02", "event 0: field \"ip\": invalid IP address \"1.2.3\""),
        (r#"{"ts":true}"#, "22P02", "event 0: field \"ts\": expected a time as text or number, found true"),
        (r#"{"ts":"soon"}"#, "22007", "event 0: field \"ts\": invalid time \"soon\": it is too short"),
        (
            r#"{"timestamp":"2024-13-01T00:00:00Z"}"#,
            "22008",
            "event 0: field \"timestamp\": time \"2024-13-01T00:00:00Z\" is out of range: a month is 1 to 12",
        ),
        (
            r#"{"ts":"2024-03-15T13:30:00Z"}"#,
            "22008",
            "event 0: field \"ts\": \"2024-03-15T13:30:00Z\" is 1 h 30 min ahead of the server's clock",
        ),
        (
            r#"{"path":"a\u0000"}"#,
            "22P05",
            "event 0: field \"path\": the character \\u0000 cannot be stored as text",
        ),
        (r#"{"path":"\ud800x"}"#, "22P02", "event 0: field \"path\": unpaired surrogate \\ud800"),
    ] {
        assert_eq!(error(text), (state, message.to_owned()), "{text}");
    }
}

#[test]
fn shortens_values_at_a_character() {
    let message = error(&format!("{{\"status\":\"{}\"}}", "é".repeat(100))).1;
    assert_eq!(
        message,
        format!("event 0: field \"status\": expected an integer, found \"{}…", "é".repeat(39))
    );
}

#[test]
fn hints_at_the_way_out() {
    let hint = |text| decode(Format::Json, text, &CLOCK, OnInvalid::Error).unwrap_err().hint();
    assert!(hint(r#"{"ts":"2124-01-01T00:00:00Z"}"#).unwrap().contains("tailstream.max_future_skew"));
    assert!(hint(r#"{"ts":"soon"}"#).unwrap().contains("RFC 3339"));
    assert!(hint(r#"{"status":"200"}"#).unwrap().contains("without quotes"));
    assert_eq!(hint(r#"{"path":5}"#), None);
}

#[test]
fn permits_the_tolerated_future_to_the_microsecond() {
    assert_eq!(event(r#"{"ts":"2024-03-15T12:05:00Z"}"#).created_at, CLOCK.max_future);
    assert_eq!(error(r#"{"ts":"2024-03-15T12:05:00.000001Z"}"#).0, "22008");
}
