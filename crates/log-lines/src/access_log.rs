//! Access logs of Apache and nginx, in the common and the combined format.

use std::fmt;

use jiff::fmt::strtime;

/// One request as an access log tells it; `None` is what the log writes as `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEvent {
    /// Microseconds since the epoch.
    pub created_at: i64,
    /// The client's address, or its name where the server looks names up.
    pub remote: String,
    pub user: Option<String>,
    /// `-` when the request line was no HTTP request.
    pub method: String,
    /// The whole request line when it was no HTTP request.
    pub path: String,
    pub protocol: Option<String>,
    pub status: u16,
    pub bytes: Option<u64>,
    pub referrer: Option<String>,
    pub user_agent: Option<String>,
}

/// Why a line is no access-log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError(&'static str);

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "no access-log line: {}", self.0)
    }
}

impl std::error::Error for ParseError {}

/// Reads one line in the common or the combined format. Fields that some servers append to these
/// are passed over; bytes that are no UTF-8 are replaced.
pub fn parse(line: &[u8]) -> Result<AccessEvent, ParseError> {
    let line = line.trim_ascii_end();
    let (remote, rest) = word(line).ok_or(ParseError("no remote host"))?;
    let (_identity, rest) = word(rest).ok_or(ParseError("no identity"))?;
    // A user's name may hold spaces; the time's bracket ends it.
    let bracket = rest.windows(2).position(|pair| pair == b" [").ok_or(ParseError("no time in brackets"))?;
    let (user, rest) = (&rest[..bracket], &rest[bracket + 2..]);
    let end = rest.iter().position(|byte| *byte == b']').ok_or(ParseError("no end of the time"))?;
    let created_at = time(&rest[..end]).ok_or(ParseError("the time is no time"))?;
    let (request, rest) = quoted(&rest[end + 1..]).ok_or(ParseError("no request in quotes"))?;
    let (status, rest) = word(rest.trim_ascii_start()).ok_or(ParseError("no status"))?;
    let status = number(status)
        .and_then(|status| u16::try_from(status).ok())
        .filter(|status| (100..1000).contains(status))
        .ok_or(ParseError("the status is no status"))?;
    let (bytes, rest) = word(rest).ok_or(ParseError("no size"))?;
    let bytes = match bytes {
        b"-" => None,
        digits => Some(number(digits).ok_or(ParseError("the size is no number"))?),
    };
    let (referrer, rest) = quoted(rest).unzip();
    let user_agent = rest.and_then(quoted).map(|(agent, _)| agent);
    let (method, path, protocol) = split_request(request);
    Ok(AccessEvent {
        created_at,
        remote: unescape(remote),
        user: present(unescape(user)),
        method,
        path,
        protocol,
        status,
        bytes,
        referrer: referrer.and_then(present),
        user_agent: user_agent.and_then(present),
    })
}

/// The bytes up to the next space, and what follows the space.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let rest = text.get(end + 1..).unwrap_or_default();
    (end > 0).then_some((&text[..end], rest))
}

/// A quoted field after optional spaces, and what follows it.
fn quoted(text: &[u8]) -> Option<(String, &[u8])> {
    let body = text.trim_ascii_start().strip_prefix(b"\"")?;
    let mut position = 0;
    loop {
        match body.get(position)? {
            b'"' => return Some((unescape(&body[..position]), &body[position + 1..])),
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
}

/// Undoes the escapes of Apache and nginx. An escaped NUL stays escaped: no text column can hold it.
fn unescape(field: &[u8]) -> String {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let (decoded, length) = match (byte, after) {
            (b'\\', [b'x', high, low, ..]) => (hex(*high, *low), 4),
            (b'\\', [escaped, ..]) => (simple_escape(*escaped), 2),
            _ => (Some(byte), 1),
        };
        match decoded {
            Some(0) | None => plain.extend_from_slice(&rest[..length]),
            Some(decoded) => plain.push(decoded),
        }
        rest = &rest[length..];
    }
    // A NUL can also stand there as it is.
    String::from_utf8_lossy(&plain).replace('\0', "\\x00")
}

fn simple_escape(escaped: u8) -> Option<u8> {
    match escaped {
        b'"' | b'\\' => Some(escaped),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'b' => Some(8),
        b'v' => Some(11),
        _ => None,
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? * 16 + digit(low)?)
}

fn present(field: String) -> Option<String> {
    (!field.is_empty() && field != "-").then_some(field)
}

fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `17/May/2015:10:05:03 +0000` in microseconds since the epoch.
fn time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let time = strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?.to_timestamp().ok()?;
    Some(time.as_microsecond())
}

/// Method, path and protocol of a request line. A path may hold spaces where a client sent them;
/// what is no HTTP request at all (a TLS handshake, an empty line) is kept whole as the path.
fn split_request(request: String) -> (String, String, Option<String>) {
    let is_method = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'-')
    };
    match request.split_once(' ') {
        Some((method, rest)) if is_method(method) => match rest.rsplit_once(' ') {
            Some((path, protocol)) if protocol.starts_with("HTTP/") => {
                (method.to_owned(), path.to_owned(), Some(protocol.to_owned()))
            }
            _ => (method.to_owned(), rest.to_owned(), None),
        },
        _ => ("-".to_owned(), request, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMBINED: &str = r#"83.149.9.216 - frank [17/May/2015:10:05:03 +0200] "GET /a?b=c HTTP/1.1" 200 2326 "http://x.example/" "Mozilla/5.0 (X11)""#;

    fn ok(line: &str) -> AccessEvent {
        parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn combined() {
        assert_eq!(
            ok(COMBINED),
            AccessEvent {
                created_at: 1_431_849_903_000_000,
                remote: "83.149.9.216".to_owned(),
                user: Some("frank".to_owned()),
                method: "GET".to_owned(),
                path: "/a?b=c".to_owned(),
                protocol: Some("HTTP/1.1".to_owned()),
                status: 200,
                bytes: Some(2326),
                referrer: Some("http://x.example/".to_owned()),
                user_agent: Some("Mozilla/5.0 (X11)".to_owned()),
            }
        );
    }

    #[test]
    fn common_and_appended_fields() {
        let common = ok(r#"h - - [17/May/2015:10:05:03 +0000] "HEAD / HTTP/1.0" 304 -"#);
        assert_eq!((common.user, common.bytes, common.referrer, common.user_agent), (None, None, None, None));
        let timed = ok(&format!("{COMBINED} 0.004 \"-\"\r\n"));
        assert_eq!(timed, ok(COMBINED));
        assert_eq!(ok(r#"h - a b [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#).user.unwrap(), "a b");
    }

    #[test]
    fn escapes() {
        let agent = |field: &str| {
            ok(&format!(r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "{field}""#))
                .user_agent
                .unwrap()
        };
        assert_eq!(agent(r#"a \"b\" \\ c"#), r#"a "b" \ c"#);
        assert_eq!(agent(r"\xc3\xa4\x22"), "ä\"");
        assert_eq!(agent(r"\x00\xff\xzz\q\t"), "\\x00\u{fffd}\\xzz\\q\t");
        assert_eq!(agent("a\0b"), "a\\x00b");
    }

    #[test]
    fn requests_that_are_none_are_kept() {
        let request = |field: &str| {
            let event = ok(&format!(r#"h - - [17/May/2015:10:05:03 +0000] "{field}" 400 0"#));
            (event.method, event.path, event.protocol)
        };
        assert_eq!(request("-"), ("-".to_owned(), "-".to_owned(), None));
        assert_eq!(request(r"\x16\x03\x01 x").0, "-");
        assert_eq!(request("GET /old"), ("GET".to_owned(), "/old".to_owned(), None));
        assert_eq!(request("GET /a b HTTP/1.1").1, "/a b");
    }

    #[test]
    fn what_is_no_line_is_an_error() {
        for line in [
            "",
            " ",
            "hello world",
            r#"h - - [yesterday] "GET / HTTP/1.1" 200 1"#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1 200 1"#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" abc 1"#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 20 1"#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1x"#,
            r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 99999999999999999999"#,
            r#"{"json":"log"}"#,
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_damaged_line_never_panics(at in 0..COMBINED.len(), with in any::<u8>(), cut in 0..COMBINED.len()) {
            let mut line = COMBINED.as_bytes().to_vec();
            line[at] = with;
            line.truncate(cut);
            let _ = parse(&line);
        }

        #[test]
        fn any_agent_comes_back(agent in "[^\0]{1,40}") {
            let escaped: String = agent.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            let event = ok(&format!(r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "{escaped}""#));
            prop_assert_eq!(event.user_agent, present(agent));
        }
    }
}
