use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;
use crate::error::Problem;

/// Reads one value that fills the text.
fn read(text: &str) -> Result<(), Problem> {
    let mut lexer = Lexer::new(text, false);
    let value = Audit::default().value(&mut lexer)?;
    assert!(text.contains(value.raw));
    match lexer.peek() {
        None => Ok(()),
        Some(_) => Err(lexer.unexpected("the end")),
    }
}

/// The same grammar as `serde_json`; beyond it, only what `jsonb` would refuse is refused.
fn agrees(text: &str) -> Result<(), TestCaseError> {
    let valid = serde_json::from_str::<IgnoredAny>(text).is_ok();
    match read(text) {
        Ok(()) => prop_assert!(valid, "accepted {text:?}"),
        Err(Problem::Syntax { .. }) => prop_assert!(!valid, "refused {text:?}"),
        Err(_) => {}
    }
    Ok(())
}

#[test]
fn reads_the_grammar() {
    for text in [
        "0",
        "-0",
        "1.5e-3",
        "1E+2",
        "\"\"",
        "\"\\u00e9\\n\\/\"",
        "[]",
        "{}",
        "[[],{}]",
        " [ 1 , 2 ] ",
        "{\"a\":{\"b\":[null,true,false]}}",
        "\r\n\t1",
        "\"é\u{7f}\"",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "tru",
        "nulll",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "[1 2]",
        "[}",
        "{]",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u12",
        "\"a\nb\"",
        "\"\u{1}\"",
        "NaN",
        "Infinity",
        "'a'",
        "",
        " ",
        "[1]]",
        "\u{feff}1",
        "\u{b}1",
    ] {
        agrees(text).unwrap();
    }
}

#[test]
fn says_where_and_what() {
    let message = |text| read(text).unwrap_err().to_string();
    assert_eq!(message("[1,\n 2 x]"), "invalid JSON at character 8: expected \",\" or \"]\", found x]");
    assert_eq!(message("[\"é\", tru]"), "invalid JSON at character 7: expected a value, found tru]");
    assert_eq!(message("[1"), "invalid JSON at character 3: expected \",\" or \"]\", found the end");
    assert_eq!(
        message("\"a\tb\""),
        "invalid JSON at character 3: control characters must be escaped in a string"
    );
}

#[test]
fn finds_specials_at_every_offset() {
    for special in ['"', '\\', '\u{1f}', '\0'] {
        for at in 0..40 {
            let text = format!(
                "{}{special}{}",
                "é ~".repeat(20).chars().take(at).collect::<String>(),
                "\"x".repeat(9)
            );
            let expected = text.find(special).unwrap();
            assert_eq!(string::next_special(text.as_bytes(), 0), expected);
        }
    }
}

proptest! {
    #[test]
    fn agrees_on_anything(text in "\\PC*") {
        agrees(&text)?;
    }

    #[test]
    fn agrees_on_what_looks_like_json(
        text in prop::collection::vec(prop::sample::select(vec![
            "[", "]", "{", "}", ",", ":", "\"a\"", "\"b\"", "\"\\u0061\"", "1", "-", "0", ".5", "e3", "null", "true", " ",
            "\n", "\"", "\\", "\\ud800", "\\udc00", "\\u0000",
        ]), 0..30)
    ) {
        agrees(&text.concat())?;
    }

    #[test]
    fn resolves_escapes_as_serde_json_does(text in "([a-z\u{0}-\u{20}\"\\\\é🦀]|\\PC)*") {
        let mut written = String::new();
        write_string(&mut written, &text);
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), &*text);
        let token = Lexer::new(&written, false).scalar().unwrap();
        match token.text() {
            Ok(read) => prop_assert_eq!(read.as_deref(), Some(&*text)),
            Err(problem) => prop_assert!(problem == Problem::NulCharacter && text.contains('\0')),
        }
    }

    #[test]
    fn pairs_surrogates_as_serde_json_does(units in prop::collection::vec(
        prop_oneof![1_u16.., 0xD800_u16..0xE000], 1..4)
    ) {
        let escapes: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
        let written = format!("\"{escapes}\"");
        let token = Lexer::new(&written, false).scalar().unwrap();
        let ours = token.text().ok().flatten().map(|text| text.into_owned());
        prop_assert_eq!(ours, serde_json::from_str::<String>(&written).ok());
    }
}
