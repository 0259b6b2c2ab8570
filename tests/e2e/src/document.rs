//! Random events in JSON.

use std::fmt::Write;

use tailstream_devkit::event::rfc3339;

use crate::Random;

const TEXTS: [&str; 14] = [
    "",
    "/",
    "/a/b?c=d&e=%20",
    "Mozilla/5.0 (X11; Linux x86_64)",
    "ünïcödé",
    "日本語",
    "🦀🦀",
    "a\\\"b\\\\c\\/d",
    "tab\\tline\\nfeed\\u0001\\b\\f\\r",
    "\\ud83e\\udd80",
    "'; DROP TABLE tailstream.events; --",
    "\u{202e}\u{feff}",
    "null",
    "{\\\"nested\\\": \\\"text\\\"}",
];
const NUMBERS: [&str; 12] = [
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "1.50",
    "1e3",
    "0.1",
    "123456789012345678901234567890",
    "1e-20",
    "-2.5E+2",
    "1e400",
];
const INTEGERS: [&str; 7] = ["0", "200", "-1", "404.0", "2147483647", "-2147483648", "5e2"];
const BIG: [&str; 5] = ["0", "1024", "9223372036854775807", "-9223372036854775808", "1e18"];
const ADDRESSES: [&str; 8] = [
    "127.0.0.1",
    "10.1.2.3/8",
    "255.255.255.255",
    "::",
    "::1",
    "2001:db8::/32",
    "::ffff:10.0.0.1",
    "fe80::1:2:3:4/128",
];

/// A valid event that says its time, as the text of a JSON object.
pub fn event(random: &mut Random, created_at: i64) -> String {
    let mut json = format!(r#"{{"created_at":"{}""#, rfc3339(created_at));
    for name in ["host", "method", "path", "user_agent", "referrer"] {
        member(random, &mut json, name, 60, string);
    }
    member(random, &mut json, "status", 70, |random| random.pick(&INTEGERS).to_owned());
    let (time, size) = (random.pick(&["response_time", "rt"]), random.pick(&["response_size", "bytes"]));
    member(random, &mut json, time, 60, |random| {
        random.pick(&["0", "1.5", "0.245", "-3", "1e-9", "2000000"]).to_owned()
    });
    member(random, &mut json, size, 60, |random| random.pick(&BIG).to_owned());
    let address = random.pick(&["ip_address", "ip"]);
    member(random, &mut json, address, 50, |random| format!("\"{}\"", random.pick(&ADDRESSES)));
    for name in ["src", "extra", "ключ", "with \\\"quotes\\\""] {
        member(random, &mut json, name, 20, |random| value(random, 4));
    }
    member(random, &mut json, "metadata", 40, |random| object(random, 4));
    json.push('}');
    json
}

/// Adds a member with some likelihood, now and then a null.
fn member(
    random: &mut Random,
    json: &mut String,
    name: &str,
    percent: usize,
    value: impl Fn(&mut Random) -> String,
) {
    if random.chance(percent) {
        let value = if random.chance(8) { "null".to_owned() } else { value(random) };
        write!(json, r#","{name}":{value}"#).expect("text");
    }
}

fn string(random: &mut Random) -> String {
    let text = TEXTS[random.below(TEXTS.len())];
    // Beyond 2 kB a row is toasted, and what does not compress goes out of line.
    match random.below(30) {
        0 => format!("\"{}\"", text.repeat(300)),
        1 => {
            let noise: String = (0..400).map(|_| format!("{:016x}", random.bits())).collect();
            format!("\"{noise}\"")
        }
        _ => format!("\"{text}\""),
    }
}

/// Any JSON value.
pub fn value(random: &mut Random, depth: usize) -> String {
    match random.below(if depth == 0 { 4 } else { 6 }) {
        0 => random.pick(&["null", "true", "false"]).to_owned(),
        1 => random.pick(&NUMBERS).to_owned(),
        2 | 3 => string(random),
        4 => {
            let values: Vec<String> = (0..random.below(4)).map(|_| value(random, depth - 1)).collect();
            format!("[{}]", values.join(" , "))
        }
        _ => object(random, depth - 1),
    }
}

fn object(random: &mut Random, depth: usize) -> String {
    let members: Vec<String> =
        (0..random.below(4)).map(|number| format!(r#""k{number}" : {}"#, value(random, depth))).collect();
    format!("{{{}}}", members.join(", "))
}
