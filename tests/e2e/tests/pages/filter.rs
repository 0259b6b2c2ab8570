//! Filters: random ones, and which events they let pass.

use serde_json::{Map, Value, json};
use tailstream_e2e::Random;

use crate::model::{Event, HOSTS, METHODS, PATHS, STATUSES};

/// None, an empty one, or any combination of conditions.
pub fn any(random: &mut Random) -> Option<Value> {
    if random.chance(25) {
        return None;
    }
    let mut filter = Map::new();
    let percent = 30;
    if random.chance(percent) {
        filter.insert("status".to_owned(), one_or_more(random, status));
    }
    if random.chance(percent) {
        filter.insert("method".to_owned(), one_or_more(random, |random| json!(random.pick(&METHODS))));
    }
    if random.chance(percent) {
        filter.insert("host".to_owned(), one_or_more(random, |random| json!(random.pick(&HOSTS))));
    }
    if random.chance(percent) {
        filter.insert("path".to_owned(), one_or_more(random, prefix));
    }
    if random.chance(percent) {
        filter.insert("metadata".to_owned(), metadata(random));
    }
    Some(Value::Object(filter))
}

/// A value, or a list of some.
fn one_or_more(random: &mut Random, value: impl Fn(&mut Random) -> Value) -> Value {
    if random.chance(50) {
        return value(random);
    }
    (0..=random.below(4)).map(|_| value(random)).collect()
}

fn status(random: &mut Random) -> Value {
    match random.chance(50) {
        true => json!(random.pick(&["1xx", "2xx", "3xx", "4xx", "5xx"])),
        false => json!(STATUSES[random.below(STATUSES.len())]),
    }
}

fn prefix(random: &mut Random) -> Value {
    let path: Vec<char> = random.pick(&PATHS).chars().collect();
    let length = random.below(path.len() + 1);
    match random.below(5) {
        0 => json!(random.pick(&["/nowhere", "/a__", "/%", "/100\\%", "_"])),
        1 => json!(path.iter().collect::<String>()),
        _ => json!(path[..length].iter().collect::<String>()),
    }
}

fn metadata(random: &mut Random) -> Value {
    match random.below(6) {
        0 => json!({}),
        1 => json!({ "k": random.below(4) }),
        2 => json!({ "tag": random.pick(&["a", "it's", "nothing"]) }),
        3 => json!({ "deep": { "x": [random.below(3)] } }),
        4 => json!({ "deep": { "x": [{ "y": true }, 1] } }),
        _ => json!({ "k": random.below(3), "deep": {} }),
    }
}

pub fn matches(filter: &Value, event: &Event) -> bool {
    filter.as_object().expect("an object").iter().all(|(key, wanted)| match key.as_str() {
        "status" => any_of(wanted, |wanted| has_status(event.status, wanted)),
        "method" => any_of(wanted, |wanted| wanted == event.method),
        "host" => any_of(wanted, |wanted| event.host.is_some_and(|host| wanted == host)),
        "path" => any_of(wanted, |wanted| event.path.starts_with(wanted.as_str().expect("a prefix"))),
        "metadata" => event.metadata.as_ref().is_some_and(|metadata| contains(metadata, wanted)),
        other => panic!("unknown key {other:?}"),
    })
}

fn any_of(wanted: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    match wanted {
        Value::Array(list) => list.iter().any(holds),
        one => holds(one),
    }
}

/// A number, or a class such as "5xx".
fn has_status(status: i32, wanted: &Value) -> bool {
    match wanted.as_str() {
        Some(class) => {
            let hundreds: i32 = class[..1].parse().expect("a digit");
            (hundreds * 100..hundreds * 100 + 100).contains(&status)
        }
        None => wanted == status,
    }
}

/// As the operator `@>` of jsonb.
fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|value| contains(value, part)))
        }
        (Value::Array(value), Value::Array(part)) => {
            part.iter().all(|part| value.iter().any(|value| contains(value, part)))
        }
        (value, part) => value == part,
    }
}
