use super::*;

fn parsed(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn nothing_wants_everything() {
    for text in ["null", "{}"] {
        assert!(parsed(text).is_empty());
        assert_eq!(parsed(text).condition(7), "");
    }
}

#[test]
fn a_condition_has_only_what_is_asked_for() {
    assert_eq!(parsed(r#"{"status":404}"#).condition(7), " AND (status BETWEEN 404 AND 404)");
    assert_eq!(
        parsed(r#"{"status":["5xx",404],"path":"/api/","metadata":{"a":1}}"#).condition(7),
        " AND (status BETWEEN 500 AND 599 OR status BETWEEN 404 AND 404) AND path ^@ ANY ($9) AND metadata @> $10"
    );
    assert_eq!(
        parsed(r#"{"method":"GET","host":["a","b"]}"#).condition(7),
        " AND method = ANY ($7) AND host = ANY ($8)"
    );
}

#[test]
fn no_text_of_a_filter_is_in_its_condition() {
    let nasty = r#"{"method":"'; DROP TABLE x; --","host":"$1","path":"%","metadata":{"'":"\""}}"#;
    assert_eq!(
        parsed(nasty).condition(1),
        " AND method = ANY ($1) AND host = ANY ($2) AND path ^@ ANY ($3) AND metadata @> $4"
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (text, expected) in [
        ("7", "expected an object, got 7"),
        (r#"{"stat":1}"#, "unknown key \"stat\""),
        (r#"{"status":"6x"}"#, "\"status\" cannot be \"6x\""),
        (r#"{"status":"0xx"}"#, "\"status\" cannot be \"0xx\""),
        (r#"{"status":99999999999}"#, "\"status\" cannot be 99999999999"),
        (r#"{"status":4.5}"#, "\"status\" cannot be 4.5"),
        (r#"{"method":[]}"#, "\"method\" has 0 values"),
        (r#"{"method":1}"#, "\"method\" cannot be 1"),
        (r#"{"path":null}"#, "\"path\" cannot be null"),
        (r#"{"metadata":[1]}"#, "\"metadata\" is no object but [1]"),
    ] {
        let message = Filter::parse(text).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(message, format!("filter: {expected}"), "{text}");
    }
}

#[test]
fn metadata_is_left_as_it_is() {
    let filter = parsed(r#"{"metadata":{"n":0.30000000000000000001,"m":1e400}}"#);
    assert_eq!(filter.metadata.as_deref(), Some(r#"{"n":0.30000000000000000001,"m":1e400}"#));
}
