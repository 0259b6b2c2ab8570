use super::*;

/// The metadata of an event whose braces are left out.
fn kept(members: &str) -> String {
    metadata(&format!("{{{members}}}")).unwrap()
}

#[test]
fn keeps_unknown_keys_verbatim() {
    assert_eq!(
        kept(r#""a": 1.50 ,"b":null,"c":[ 1 ],"d":"\u00e9""#),
        r#"{"a":1.50,"b":null,"c":[ 1 ],"d":"\u00e9"}"#
    );
    assert_eq!(kept(r#""":1e400"#), r#"{"":1e400}"#);
}

#[test]
fn merges_the_given_object() {
    assert_eq!(kept(r#""metadata":{"a":1,"b":2},"a":3"#), r#"{"b":2,"a":3}"#);
    assert_eq!(kept(r#""\u0061":3,"metadata":{"a":1}"#), r#"{"\u0061":3}"#);
    assert_eq!(kept(r#""metadata":{"path":"/x"},"path":"/y""#), r#"{"path":"/x"}"#);
    assert_eq!(kept(r#""metadata":{"metadata":{"rt":null}}"#), r#"{"metadata":{"rt":null}}"#);
    assert_eq!(kept(r#""metadata":{ }"#), "{}");
    let many: String = (0..100).map(|n| format!("\"k{n}\":0,")).collect();
    let given: Vec<_> = (50..150).map(|n| format!("\"k{n}\":1")).collect();
    let merged = kept(&format!("{many}\"metadata\":{{{}}}", given.join(",")));
    let merged: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&merged).unwrap();
    assert_eq!(merged.len(), 150);
    assert_eq!((&merged["k99"], &merged["k100"]), (&0.into(), &1.into()));
}

#[test]
fn keeps_metadata_that_is_no_object_whole() {
    assert_eq!(kept(r#""metadata":[1]"#), r#"{"metadata":[1]}"#);
    assert_eq!(kept(r#""metadata":"x","a":1"#), r#"{"a":1,"metadata":"x"}"#);
    assert_eq!(metadata(r#"{"metadata":null}"#), None);
}

#[test]
fn keeps_losing_aliases() {
    assert_eq!(
        kept(r#""ts":5,"created_at":"2024-01-01T00:00:00Z","timestamp":"never""#),
        r#"{"ts":5,"timestamp":"never"}"#
    );
    assert_eq!(kept(r#""timestamp":[],"ts":1"#), r#"{"timestamp":[]}"#);
    assert_eq!(kept(r#""rt":1.5,"response_time":3"#), r#"{"rt":1.5}"#);
    assert_eq!(kept(r#""bytes":"x","response_size":3"#), r#"{"bytes":"x"}"#);
    assert_eq!(kept(r#""ip":"x","ip_address":"::1""#), r#"{"ip":"x"}"#);
    let null_wins_nothing =
        event(r#"{"response_time":null,"rt":0.5,"created_at":null,"ts":null,"timestamp":7}"#);
    assert_eq!((null_wins_nothing.response_time, null_wins_nothing.created_at), (Some(500), 7_000_000));
    assert_eq!(null_wins_nothing.metadata, None);
}

#[test]
fn keeps_originals_of_inexact_conversions() {
    for (members, response_time, kept) in [
        (r#""rt":0.2453"#, 245, Some(r#"{"rt":0.2453}"#)),
        (r#""rt":0.2455"#, 246, Some(r#"{"rt":0.2455}"#)),
        (r#""rt":0.1"#, 100, None),
        (r#""rt":1.005e0"#, 1005, None),
        (r#""response_time":12.5"#, 13, Some(r#"{"response_time":12.5}"#)),
        (r#""response_time":12.0"#, 12, None),
        (r#""response_time":-2.5"#, -3, Some(r#"{"response_time":-2.5}"#)),
        (r#""metadata":{"rt":1},"rt":0.0001"#, 0, Some(r#"{"rt":0.0001}"#)),
    ] {
        let text = format!("{{{members}}}");
        let event = event(&text);
        assert_eq!(event.response_time, Some(response_time), "{members}");
        assert_eq!(event.metadata.as_deref(), kept, "{members}");
    }
    assert_eq!(kept(r#""ts":"2024-01-01T00:00:00.1234567Z""#), r#"{"ts":"2024-01-01T00:00:00.1234567Z"}"#);
    assert_eq!(kept(r#""created_at":1.0000001"#), r#"{"created_at":1.0000001}"#);
    assert_eq!(metadata(r#"{"ts":"2024-01-01T00:00:00.123456000+05:30"}"#), None);
}
