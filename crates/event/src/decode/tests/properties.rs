use proptest::prelude::*;

use super::*;

const FORMATS: [Format; 2] = [Format::Json, Format::NdJson];

/// What must hold for any text at all.
fn check(text: &str) -> Result<(), TestCaseError> {
    for format in FORMATS {
        let strict = decode(format, text, &CLOCK, OnInvalid::Error);
        let lenient = decode(format, text, &CLOCK, OnInvalid::Quarantine);
        match (&strict, &lenient) {
            (Ok(strict), Ok(lenient)) => prop_assert_eq!(strict, lenient),
            (Err(strict), Ok(lenient)) => {
                prop_assert_eq!(Some(strict), lenient.rejected.first().map(|first| &first.error))
            }
            (strict, Err(_)) => prop_assert!(strict.is_err() && format == Format::Json),
        }
        for event in lenient.iter().flat_map(|batch| &batch.events) {
            if let Some(metadata) = &event.metadata {
                prop_assert!(
                    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(metadata).is_ok()
                );
            }
        }
        for rejection in lenient.iter().flat_map(|batch| &batch.rejected) {
            prop_assert!(text.contains(rejection.raw));
            let again = decode(Format::NdJson, rejection.raw, &CLOCK, OnInvalid::Error);
            prop_assert!(rejection.raw.contains('\n') || again.is_err());
        }
        let errors = lenient.iter().flat_map(|batch| batch.rejected.iter().map(|rejection| &rejection.error));
        for error in errors.chain(&strict.err()) {
            prop_assert!(error.sqlstate().starts_with("22"));
            prop_assert!(error.to_string().len() < 1000);
        }
    }
    Ok(())
}

fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\n",
        " ",
        "null",
        "true",
        "1",
        "-2.5",
        "0.2453",
        "1e400",
        "1e200000",
        "\"x\"",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"2024-03-15T10:30:45.1234567Z\"",
        "\"::1\"",
        "\"path\":",
        "\"ts\":",
        "\"rt\":",
        "\"status\":",
        "\"metadata\":",
        "\"a\":",
        "\"\\u0061\":",
        "\"ip\":",
        "{\"path\":\"/\"}",
        "{\"a\":{\"b\":[1]}}",
        "\"é",
        "\\",
        "\"",
    ]);
    prop::collection::vec(fragment, 0..25).prop_map(|fragments| fragments.concat())
}

/// A valid batch with some of its characters replaced.
fn mutated() -> impl Strategy<Value = String> {
    let valid = r#"[{"ts":"2024-03-15T10:30:45.123456+00:00","host":"w","rt":0.245,"bytes":1024,"ip":"10.0.0.1","a":"\u00e9"},
{"created_at":1710498645.5,"path":"\/x","metadata":{"k":[1,{"z":null}],"path":2e3},"response_time":12.5,"é":false}]"#;
    let edit = (
        any::<prop::sample::Index>(),
        prop::option::of(prop_oneof![any::<char>(), prop::char::range(' ', '~')]),
    );
    prop::collection::vec(edit, 0..4).prop_map(move |edits| {
        let mut chars: Vec<char> = valid.chars().collect();
        for (at, with) in edits {
            let at = at.index(chars.len());
            match with {
                Some(with) => chars[at] = with,
                None => {
                    chars.remove(at);
                }
            }
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn holds_for_any_text(text in "\\PC*") {
        check(&text)?;
    }

    #[test]
    fn holds_for_fragments(text in fragments()) {
        check(&text)?;
    }

    #[test]
    fn holds_for_mutations(text in mutated()) {
        check(&text)?;
    }

    #[test]
    fn arrays_and_lines_agree(events in prop::collection::vec(fragments(), 1..5)) {
        let lines: Vec<String> = events.iter().map(|event| format!("{{{}}}", event.replace('\n', " "))).collect();
        let text = lines.join("\n");
        let by_line = decode(Format::NdJson, &text, &CLOCK, OnInvalid::Quarantine).unwrap();
        let array = format!("[{}]", lines.join(","));
        // A line that is no JSON ends an array, or spills into the next element.
        if serde_json::from_str::<Vec<&serde_json::value::RawValue>>(&array).is_ok_and(|raw| raw.len() == lines.len()) {
            let by_element = decode(Format::Json, &array, &CLOCK, OnInvalid::Quarantine).unwrap();
            prop_assert_eq!(by_line.events, by_element.events);
            prop_assert_eq!(by_line.rejected, by_element.rejected);
        }
    }
}
