use proptest::prelude::*;

use super::*;

fn scaled(number: &str, shift: i64) -> (Option<i64>, Option<i64>, bool) {
    let scaled = Scaled::parse(number, shift).unwrap();
    (scaled.floored(), scaled.rounded(), scaled.is_exact())
}

#[test]
fn scales_by_decimal_text() {
    assert_eq!(scaled("0.245", 3), (Some(245), Some(245), true));
    assert_eq!(scaled("0.2453", 3), (Some(245), Some(245), false));
    assert_eq!(scaled("0.2455", 3), (Some(245), Some(246), false));
    assert_eq!(scaled("-0.2455", 3), (Some(-246), Some(-246), false));
    assert_eq!(scaled("2e2", 0), (Some(200), Some(200), true));
    assert_eq!(scaled("200.0", 0), (Some(200), Some(200), true));
    assert_eq!(scaled("20000E-2", 0), (Some(200), Some(200), true));
    assert_eq!(scaled("0.02e+4", 0), (Some(200), Some(200), true));
    assert_eq!(scaled("1e-400", 3), (Some(0), Some(0), false));
    assert_eq!(scaled("-1e-400", 3), (Some(-1), Some(0), false));
    assert_eq!(scaled("0e99999999999999999999", 3), (Some(0), Some(0), true));
    assert_eq!(scaled("9007199254740993", 0).0, Some(9_007_199_254_740_993));
}

#[test]
fn knows_the_ends_of_64_bits() {
    assert_eq!(scaled("9223372036854775807", 0).1, Some(i64::MAX));
    assert_eq!(scaled("-9223372036854775808", 0).1, Some(i64::MIN));
    assert_eq!(scaled("9223372036854775808", 0).1, None);
    assert_eq!(scaled("9223372036854775807.5", 0).1, None);
    assert_eq!(Scaled::parse("1e99999999999999999999", 0), None);
    assert_eq!(Scaled::parse("18446744073709551616", 0), None);
}

#[test]
fn knows_the_limits_of_numeric() {
    assert_eq!(numeric_digits("1e400"), Some(401));
    assert_eq!(numeric_digits("1e131071"), Some(131_072));
    assert_eq!(numeric_digits("1e131072"), None);
    assert_eq!(numeric_digits("0.1e131072"), Some(131_072));
    assert_eq!(numeric_digits("1e-16383"), Some(16_383));
    assert_eq!(numeric_digits("1e-16384"), None);
    assert_eq!(numeric_digits("1.5e-16383"), None);
    assert_eq!(numeric_digits("0e200000"), Some(0));
    assert_eq!(numeric_digits("0e1073741823"), Some(0));
    assert_eq!(numeric_digits("0e1073741824"), None);
    assert_eq!(numeric_digits("0e-16383"), Some(16_383));
    assert_eq!(numeric_digits("0e-16384"), None);
    assert_eq!(numeric_digits("0.00001e131076"), Some(131_072));
    assert_eq!(numeric_digits("12345e131067"), Some(131_072));
    assert_eq!(numeric_digits("1e200000"), None);
    assert_eq!(numeric_digits("-12.50"), Some(4));
    assert_eq!(numeric_digits(&"9".repeat(131_072)), Some(131_072));
    assert_eq!(numeric_digits(&"9".repeat(131_073)), None);
    assert_eq!(numeric_digits(&format!("0.{}", "0".repeat(16_384))), None);
}

proptest! {
    #[test]
    fn agrees_with_integer_arithmetic(value: i32, places in 0_u32..9, shift in 0_u32..7) {
        // `value / 10^places` written out, against the same quotient of integers.
        let digits = format!("{:0>12}", value.unsigned_abs());
        let (whole, fraction) = digits.split_at(12 - places as usize);
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            trimmed => trimmed,
        };
        let sign = if value < 0 { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        let text = format!("{sign}{whole}{point}{fraction}");

        let numerator = i128::from(value) * 10_i128.pow(shift);
        let denominator = 10_i128.pow(places);
        let half = numerator.abs() * 2 + denominator;
        let nearest = half.div_euclid(denominator * 2) * numerator.signum();
        let (floored, rounded, exact) = scaled(&text, i64::from(shift));
        prop_assert_eq!(floored.map(i128::from), Some(numerator.div_euclid(denominator)));
        prop_assert_eq!(rounded.map(i128::from), Some(nearest));
        prop_assert_eq!(exact, numerator % denominator == 0);
    }
}
