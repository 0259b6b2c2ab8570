use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{Clock, Event, Format, OnInvalid, decode};

const CLOCK: Clock = Clock { now: 7, max_future: i64::MAX };

/// The event that comes out of what `encode` makes of `columns`.
fn round_trip(columns: &EventColumns<'_>) -> (String, Event<'static>) {
    let text = encode(columns);
    let leaked: &'static str = Box::leak(text.clone().into_boxed_str());
    for format in [Format::Json, Format::NdJson] {
        let batch = decode(format, leaked, &CLOCK, OnInvalid::Error).unwrap();
        assert_eq!(batch.events.len(), 1);
    }
    let batch = decode(Format::Json, leaked, &CLOCK, OnInvalid::Error).unwrap();
    (text, batch.events.into_iter().next().unwrap())
}

fn with_metadata(metadata: &str) -> String {
    let columns = EventColumns {
        path: Some("/a"),
        status: Some(200),
        response_time: Some(245),
        metadata: Some(metadata),
        ..EventColumns::default()
    };
    let (text, event) = round_trip(&columns);
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(event.metadata.as_deref().map(parse), Some(parse(metadata)));
    let prefix = "{\"created_at\":\"1970-01-01T00:00:00.000000Z\",\"path\":\"/a\",\"status\":200,\"response_time\":245,";
    text.strip_prefix(prefix).unwrap().trim_end_matches('\n').to_owned()
}

#[test]
fn flattens_what_decoding_takes_back() {
    assert_eq!(with_metadata(r#"{"src": "b", "n": [1, 2]}"#), r#""src":"b","n":[1, 2]}"#);
    assert_eq!(with_metadata(r#"{"rt": 0.2453}"#), r#""rt":0.2453}"#);
    assert_eq!(with_metadata(r#"{"ts": 1, "timestamp": "x"}"#), r#""ts":1,"timestamp":"x"}"#);
    assert_eq!(with_metadata(r#"{"metadata": [1]}"#), r#""metadata":[1]}"#);
    assert_eq!(with_metadata(r#"{"metadata": [1], "a": 2}"#), r#""a":2,"metadata":[1]}"#);
}

#[test]
fn nests_what_decoding_would_take_for_something_else() {
    assert_eq!(with_metadata("{}"), r#""metadata":{}}"#);
    assert_eq!(with_metadata(r#"{"rt": null}"#), r#""metadata":{"rt":null}}"#);
    assert_eq!(with_metadata(r#"{"bytes": 5, "ip": "x"}"#), r#""metadata":{"bytes":5,"ip":"x"}}"#);
    assert_eq!(with_metadata(r#"{"path": 1, "a": 2}"#), r#""a":2,"metadata":{"path":1}}"#);
    assert_eq!(with_metadata(r#"{"metadata": null}"#), r#""metadata":{"metadata":null}}"#);
    assert_eq!(with_metadata(r#"{"metadata": {"a": 1}}"#), r#""metadata":{"metadata":{"a": 1}}}"#);
    assert_eq!(with_metadata(r#"{"metadata": 1, "host": 2}"#), r#""metadata":{"metadata":1,"host":2}}"#);
    assert_eq!(with_metadata(r#"{"\u0070ath": 1}"#), r#""metadata":{"\u0070ath":1}}"#);
}

#[test]
fn leaves_out_nulls() {
    assert_eq!(encode(&EventColumns::default()), "{\"created_at\":\"1970-01-01T00:00:00.000000Z\"}");
}

#[test]
fn stays_json_whatever_the_metadata_is() {
    for metadata in ["[1]", "\"x\"", "1", "null"] {
        let columns =
            EventColumns { metadata: Some(metadata), created_at: i64::MIN, ..EventColumns::default() };
        serde_json::from_str::<Value>(&encode(&columns)).unwrap();
    }
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "created_at",
            "ts",
            "timestamp",
            "host",
            "method",
            "path",
            "status",
            "response_time",
            "rt",
            "response_size",
            "bytes",
            "user_agent",
            "referrer",
            "ip_address",
            "ip",
            "metadata",
            "src",
            "",
        ])
        .prop_map(str::to_owned),
        "[a-c\"\\\\é]{0,3}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[^\0]{0,9}".prop_map(Value::from),
        Just(json!(0.2453)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            object(inner).prop_map(Value::Object),
        ]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(key(), value, 0..5).prop_map(|map| map.into_iter().collect())
}

fn text() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[^\0]{0,12}")
}

fn inet() -> impl Strategy<Value = Inet> {
    let v4 = (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(address, bits)| Inet::V4(address, bits));
    let v6 = (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(address, bits)| Inet::V6(address, bits));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn decodes_to_the_same_row(
        created_at in crate::MIN_CREATED_AT..=i64::MAX,
        texts in (text(), "[^\0]{0,12}", "[^\0]{0,12}", text(), text()),
        numbers in (any::<i32>(), any::<Option<i32>>(), any::<Option<i64>>()),
        ip_address in prop::option::of(inet()),
        metadata in prop::option::of(object(value())),
    ) {
        let (host, method, path, user_agent, referrer) = texts;
        let (status, response_time, response_size) = numbers;
        let metadata = metadata.map(Value::Object);
        let metadata_text = metadata.as_ref().map(Value::to_string);
        let (_, event) = round_trip(&EventColumns {
            created_at, host: host.as_deref(), method: Some(&method), path: Some(&path), status: Some(status),
            response_time, response_size, user_agent: user_agent.as_deref(), referrer: referrer.as_deref(), ip_address,
            metadata: metadata_text.as_deref(),
        });
        let back = event.metadata.as_deref().map(|text| serde_json::from_str::<Value>(text).unwrap());
        prop_assert_eq!(back, metadata);
        let expected = Event {
            created_at, host: host.map(Into::into), method: method.into(), path: path.into(), status, response_time,
            response_size, user_agent: user_agent.map(Into::into), referrer: referrer.map(Into::into), ip_address,
            metadata: event.metadata.clone(),
        };
        prop_assert_eq!(event, expected);
    }
}

#[test]
fn a_character_takes_no_more_bytes_than_its_shortest_escape() {
    let text: String = (0_u8..128).map(char::from).chain("é\u{2028}😀".chars()).collect();
    let path = encode(&EventColumns { path: Some(&text), ..EventColumns::default() });
    let theirs = serde_json::to_string(&text).unwrap();
    assert!(path.contains(&theirs), "{path}");
    assert_eq!(encoded_length([text.as_str()]), theirs.len());
}
