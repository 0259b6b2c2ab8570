use proptest::prelude::*;

use super::*;

/// Days since 1970 by counting years and months one by one.
fn count_days(year: i64, month: i64, day: i64) -> i64 {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let years = if year >= 1970 { 1970..year } else { year..1970 };
    let of_years: i64 = years.map(|year| 365 + i64::from(leap(year))).sum();
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let of_months: i64 = lengths.iter().take(month as usize - 1).sum();
    of_months + day - 1 + if year >= 1970 { of_years } else { -of_years }
}

fn micros(text: &str) -> i64 {
    from_text(text).unwrap().micros
}

#[test]
fn reads_offsets_and_separators() {
    let noon = 1_710_504_000_000_000;
    for text in [
        "2024-03-15T12:00:00Z",
        "2024-03-15t12:00:00z",
        "2024-03-15 12:00:00",
        "2024-03-15 12:00:00.000",
        "2024-03-15T13:00:00+01:00",
        "2024-03-15T06:30:00-05:30",
        "2024-03-15T12:00:00+00:00",
        "2024-03-15T12:00:00.000000000Z",
        "2024-03-16T02:00:00+1400",
    ] {
        assert_eq!(from_text(text), Ok(Instant { micros: noon, exact: true }), "{text}");
    }
}

#[test]
fn cuts_digits_behind_the_microseconds() {
    let cut = from_text("2024-03-15T12:00:00.1234567Z").unwrap();
    assert_eq!(cut.micros % MICROS_PER_SECOND, 123_456);
    assert!(!cut.exact);
    assert!(from_text("2024-03-15T12:00:00.123456000+02:00").unwrap().exact);
    assert!(!from_text("2024-03-15T12:00:00.123456001+02:00").unwrap().exact);
    assert!(from_text("2024-03-15T12:00:00.123+02:00").unwrap().exact);
    assert!(from_text("2024-03-15T12:00:00+02:00").unwrap().exact);
}

#[test]
fn tells_no_time_from_no_such_time() {
    for text in [
        "",
        "now",
        "2024",
        "2024-03-15",
        "2024-03-15T",
        "300000-01-01T00:00:00Z",
        "é".repeat(9).as_str(),
        "2024-03-15T12:00:00 Z",
        "2024-03-15T12:00:00Z ",
        "24-03-15T12:00:00Z",
        "2024-03-15T12:00:00.Z",
    ] {
        assert!(matches!(from_text(text), Err(Problem::InvalidTime { .. })), "{text}");
    }
    for text in [
        "0000-01-01T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00+24:00",
    ] {
        assert!(matches!(from_text(text), Err(Problem::TimeOutOfRange { .. })), "{text}");
    }
}

#[test]
fn tells_seconds_from_milliseconds() {
    let number = |text| from_number(text).map(|instant| (instant.micros, instant.exact));
    assert_eq!(number("1710504000"), Ok((1_710_504_000_000_000, true)));
    assert_eq!(number("1710504000123"), Ok((1_710_504_000_123_000, true)));
    assert_eq!(number("1710504000.123456"), Ok((1_710_504_000_123_456, true)));
    assert_eq!(number("1710504000123.456"), Ok((1_710_504_000_123_456, true)));
    assert_eq!(number("1.710504e9"), Ok((1_710_504_000_000_000, true)));
    assert_eq!(number("0.0000019"), Ok((1, false)));
    assert_eq!(number("-0.0000019"), Ok((-2, false)));
    assert_eq!(number("99999999999"), Ok((99_999_999_999_000_000, true)));
    assert_eq!(number("100000000000"), Ok((100_000_000_000_000, true)));
    assert_eq!(number("-210866803200000"), Ok((MIN_CREATED_AT, true)));
    assert_eq!(number("9223372036854775.807"), Ok((i64::MAX, true)));
    for out in ["-210866803200000.001", "9223372036854775.808", "1e400", "-1e999999999999"] {
        assert!(matches!(from_number(out), Err(Problem::TimeOutOfRange { .. })), "{out}");
    }
}

#[test]
fn writes_any_instant() {
    let written = |micros| {
        let mut out = String::new();
        write_json(&mut out, micros);
        out
    };
    assert_eq!(written(0), "\"1970-01-01T00:00:00.000000Z\"");
    assert_eq!(written(-1), "\"1969-12-31T23:59:59.999999Z\"");
    assert_eq!(written(MIN_CREATED_AT), "-210866803200000.000");
    assert_eq!(written(i64::MAX), "9223372036854775.807");
    assert_eq!(written(i64::MIN), "-9223372036854775.808");
}

#[test]
fn shortens_durations() {
    assert_eq!(duration(999_999), "less than 1 s");
    assert_eq!(duration(-5), "less than 1 s");
    assert_eq!(duration(301_000_000), "5 min 1 s");
    assert_eq!(duration(3_600_000_000), "1 h");
    assert_eq!(duration(i64::MAX), "292471 y 76 d");
}

proptest! {
    #[test]
    fn agrees_with_counting(
        year in 1_i64..=9999, month in 1_i64..=12, day in 1_i64..=31, second in 0_i64..86_400,
        fraction in 0_i64..1_000_000, offset in -1439_i64..=1439,
    ) {
        let (hour, minute, rest) = (second / 3600, second / 60 % 60, second % 60);
        let sign = if offset < 0 { '-' } else { '+' };
        let (offset_hour, offset_minute) = (offset.abs() / 60, offset.abs() % 60);
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{rest:02}.{fraction:06}{sign}{offset_hour:02}:{offset_minute:02}");
        let days = count_days(year, month, day);
        let exists = if month == 12 { true } else { days < count_days(year, month + 1, 1) };
        let seconds = days * SECONDS_PER_DAY + second - offset * 60;
        match from_text(&text) {
            Ok(instant) => {
                prop_assert!(exists);
                prop_assert_eq!(instant.micros, seconds * MICROS_PER_SECOND + fraction);
            }
            Err(_) => prop_assert!(!exists),
        }
    }

    #[test]
    fn reads_what_it_writes(instant in MIN_CREATED_AT..=i64::MAX) {
        let mut out = String::new();
        write_json(&mut out, instant);
        let read = match out.strip_prefix('"') {
            Some(text) => from_text(text.trim_end_matches('"')),
            None => from_number(&out),
        };
        prop_assert_eq!(read, Ok(Instant { micros: instant, exact: true }));
    }

    #[test]
    fn reads_what_it_writes_nowadays(instant in micros("0001-01-01T00:00:00Z")..micros("9999-12-31T23:59:59Z")) {
        let mut out = String::new();
        write_json(&mut out, instant);
        prop_assert_eq!(micros(out.trim_matches('"')), instant);
    }

    #[test]
    fn never_panics(text in "\\PC{0,40}", near in "[0-9T:. Zz+é−-]{8,40}") {
        let _ = from_text(&text);
        let _ = from_text(&near);
    }
}
