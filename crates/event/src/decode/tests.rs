mod fields;
mod hostile;
mod metadata;
mod properties;

use super::*;

/// 2024-03-15T12:00:00Z, five minutes of tolerance.
const CLOCK: Clock = Clock { now: 1_710_504_000_000_000, max_future: 1_710_504_300_000_000 };

/// The events of a batch without errors.
fn events(text: &str) -> Vec<Event<'_>> {
    let batch = decode(Format::Json, text, &CLOCK, OnInvalid::Error).unwrap();
    assert_eq!(batch.rejected, []);
    batch.events
}

/// The only event.
fn event(text: &str) -> Event<'_> {
    let mut events = events(text);
    assert_eq!(events.len(), 1);
    events.remove(0)
}

/// The metadata of the only event.
fn metadata(text: &str) -> Option<String> {
    event(text).metadata
}

/// SQLSTATE and message of a batch that is refused.
fn error(text: &str) -> (&'static str, String) {
    let error = decode(Format::Json, text, &CLOCK, OnInvalid::Error).unwrap_err();
    (error.sqlstate(), error.to_string())
}

/// Index, SQLSTATE and text of each rejection.
fn rejected(format: Format, text: &str) -> Vec<(usize, &'static str, &str)> {
    let batch = decode(format, text, &CLOCK, OnInvalid::Quarantine).unwrap();
    let rejected = batch.rejected.into_iter();
    rejected.map(|rejection| (rejection.index, rejection.error.sqlstate(), rejection.raw)).collect()
}

#[test]
fn reads_arrays_and_single_objects() {
    assert_eq!(events("[]"), []);
    assert_eq!(events(" [ {} , {} ] ").len(), 2);
    assert_eq!(events("{}").len(), 1);
    assert_eq!(events("[{\"path\":\"/a\"},{\"path\":\"/b\"}]")[1].path, "/b");
}

#[test]
fn refuses_what_is_no_batch() {
    assert_eq!(error("1"), ("22032", "expected an array of objects or one object, found 1".to_owned()));
    assert_eq!(
        error(""),
        ("22032", "invalid JSON at character 1: expected a value, found the end".to_owned())
    );
    assert_eq!(
        error("{} {}"),
        ("22032", "invalid JSON at character 4: expected the end, found {}".to_owned())
    );
    assert_eq!(
        error("[{},]"),
        ("22032", "event 1: invalid JSON at character 5: expected a value, found ]".to_owned())
    );
    assert_eq!(
        error("[{},{\"a\":}]").1,
        "event 1: field \"a\": invalid JSON at character 10: expected a value, found }]"
    );
    assert_eq!(error("[{}, 5]"), ("22032", "event 1: expected an object, found 5".to_owned()));
}

#[test]
fn reads_lines() {
    let text = "{\"path\":\"/a\"}\r\n\n  \t\n {\"path\":\"/b\"} \n{\"path\":\"/c\"}";
    let batch = decode(Format::NdJson, text, &CLOCK, OnInvalid::Error).unwrap();
    let paths: Vec<_> = batch.events.iter().map(|event| &*event.path).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
    assert_eq!(decode(Format::NdJson, "\n\r\n", &CLOCK, OnInvalid::Error), Ok(Decoded::default()));
}

#[test]
fn sets_bad_lines_aside() {
    let text = "{}\n\n{\"path\":\r\n[]\n{} {}\n{\"status\":\"x\"}\n{}\n\"\nnull";
    assert_eq!(
        rejected(Format::NdJson, text),
        [
            (1, "22032", "{\"path\":"),
            (2, "22032", "[]"),
            (3, "22032", "{} {}"),
            (4, "22P02", "{\"status\":\"x\"}"),
            (6, "22032", "\""),
            (7, "22032", "null"),
        ]
    );
    let error = decode(Format::NdJson, "{}\n\n{\"é\" 1}", &CLOCK, OnInvalid::Error).unwrap_err();
    assert_eq!(error.to_string(), "event 1: invalid JSON at character 6: expected \":\", found 1}");
}

#[test]
fn sets_bad_elements_aside() {
    let text = "[{}, {\"status\":\"x\"} ,3,[{}],{\"path\":\"/ok\"},{\"a\":1,\"a\":2}]";
    assert_eq!(
        rejected(Format::Json, text),
        [
            (1, "22P02", "{\"status\":\"x\"}"),
            (2, "22032", "3"),
            (3, "22032", "[{}]"),
            (5, "22030", "{\"a\":1,\"a\":2}"),
        ]
    );
    let batch = decode(Format::Json, text, &CLOCK, OnInvalid::Quarantine).unwrap();
    assert_eq!(batch.events.len(), 2);
    assert_eq!(batch.events[1].path, "/ok");
}

#[test]
fn refuses_broken_batches_whole() {
    for text in ["[{},{\"status\":\"x\",}]", "[{},{\"status\":\"x\"", "[{},[}]", "[{}"] {
        let error = decode(Format::Json, text, &CLOCK, OnInvalid::Quarantine).unwrap_err();
        assert_eq!(error.sqlstate(), "22032", "{text}");
    }
}
