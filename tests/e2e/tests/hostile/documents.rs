//! Events that somebody might send to break something.

fn owned(events: &[&str]) -> Vec<String> {
    events.iter().map(|event| (*event).to_owned()).collect()
}

/// As many digits as a number may have.
fn digits() -> String {
    "9".repeat(131_072)
}

/// All of these are stored.
pub fn valid() -> Vec<String> {
    let long_key = "k".repeat(100_000);
    let many_keys: Vec<String> = (0..20_000).map(|n| format!(r#""k{n}":{n}"#)).collect();
    let digits = digits();
    owned(&[
        r#"{"a":"\ud83e\udd80","b":"\u0001\u001f\u007f\uffff","c":"\u202e"}"#,
        r#"{"metadata":{"status":1,"path":"p","metadata":{"metadata":null}},"metadata2":null}"#,
        r#"{"a":123456789012345678901234567890.123456789,"b":1e400,"c":-1e-400,"d":-0,"e":1.0,"f":1.10}"#,
        r#"{"response_size":9223372036854775807,"status":2147483647,"response_time":-2147483648}"#,
        r#"{"bytes":-9223372036854775808,"status":-2147483648,"rt":2147483.647}"#,
        r#"{"ts":"0001-01-01T00:00:00Z"}"#,
        r#"{"path":"","method":"","host":"","":"empty key"," ":1}"#,
        r#"{"__proto__":{},"constructor":null,"id":7,"org_id":"other","tier":2}"#,
        &format!(r#"{{"{long_key}":1}}"#),
        &format!("{{{}}}", many_keys.join(",")),
        &format!(r#"{{"n":{digits}}}"#),
        &format!(r#"{{"n":0.{}}}"#, "1".repeat(16_383)),
        &format!(r#"{{"a":{}1{}}}"#, "[".repeat(100), "]".repeat(100)),
    ])
}

/// All of these are refused. Blank lines are no events, and an array is none of the newline-delimited ones.
pub fn invalid() -> Vec<String> {
    let deep =
        |open: &str, close: &str, n: usize| format!(r#"{{"a":{}1{}}}"#, open.repeat(n), close.repeat(n));
    let digits = digits();
    owned(&[
        r#"{"a":"\u0000"}"#,
        r#"{"path":"\u0000"}"#,
        r#"{"\u0000":1}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\udc00\ud800"}"#,
        r#"{"path":"\ud83e"}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":{"b":1,"\u0062":2}}"#,
        r#"{"status":1,"status":1}"#,
        r#"{"a":1e200000}"#,
        r#"{"a":-1e-200000}"#,
        r#"{"a":1e99999999999999999999}"#,
        r#"{"status":1e400}"#,
        r#"{"a":NaN}"#,
        r#"{"status":NaN}"#,
        r#"{"rt":Infinity}"#,
        r#"{"status":"NaN"}"#,
        r#"{"a":1e}"#,
        r#"{"a":01}"#,
        r#"{"status":2147483648}"#,
        r#"{"status":-2147483649}"#,
        r#"{"status":200.5}"#,
        r#"{"status":true}"#,
        r#"{"bytes":9223372036854775808}"#,
        r#"{"bytes":-9223372036854775809}"#,
        r#"{"rt":2147483.648}"#,
        r#"{"ts":"0000-01-01T00:00:00Z"}"#,
        r#"{"ts":"300000-01-01T00:00:00Z"}"#,
        r#"{"ts":1e300}"#,
        r#"{"ts":-1e300}"#,
        r#"{"ts":"2024-02-30T00:00:00Z"}"#,
        r#"{"ts":"2024-01-01T25:00:00Z"}"#,
        r#"{"ts":9223372036854775807}"#,
        r#"{"ts":""}"#,
        r#"{"ts":"infinity"}"#,
        r#"{"ts":"now"}"#,
        r#"{"ts":[]}"#,
        r#"{"created_at":"9999-12-31T23:59:59Z"}"#,
        r#"{"ip":"256.1.1.1"}"#,
        r#"{"ip":"::g"}"#,
        r#"{"ip":"10.0.0.0/33"}"#,
        r#"{"ip":""}"#,
        r#"{"ip":7}"#,
        r#"{"path":{}}"#,
        r#"{"path":7}"#,
        "",
        " ",
        "7",
        "null",
        "\"x\"",
        "[7]",
        "[[]]",
        "[null]",
        "{",
        "[{}",
        "{}{}",
        "[{},]",
        r#"{"a":"\x"}"#,
        "{'a':1}",
        "\u{feff}{}",
        r#"{"a":"unended"#,
        &deep("[", "]", 100_000),
        &deep(r#"{"b":"#, "}", 100_000),
        &"[".repeat(1_000_000),
        &format!(r#"{{"n":{digits}9}}"#),
    ])
}
