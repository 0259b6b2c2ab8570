//! Exact arithmetic on the decimal text of JSON numbers.
//!
//! Whether a value fits its column, and whether it fits exactly, is decided on the digits that were
//! sent. Binary floating point would call 0.1 inexact and 9007199254740993 exact.

/// Digits that `numeric` has room for before the decimal point.
const NUMERIC_WHOLE_DIGITS: i64 = 131_072;
/// Digits that `numeric` has room for after the decimal point.
const NUMERIC_FRACTION_DIGITS: i64 = 16_383;
/// `numeric` reads no exponent beyond this, not even that of a zero.
const NUMERIC_EXPONENT: i64 = i32::MAX as i64 / 2;

/// The integer part of a number times a power of ten, and the digits that were cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scaled {
    negative: bool,
    magnitude: u64,
    /// The first digit that was cut off.
    first_cut: u8,
    /// Whether any later digit was not zero.
    more_cut: bool,
}

impl Scaled {
    /// `number * 10^shift`; `None` if its integer part has no room in 64 bits.
    pub(super) fn parse(number: &str, shift: i64) -> Option<Self> {
        let parts = Parts::split(number);
        let point = (parts.whole.len() as i64).saturating_add(parts.exponent).saturating_add(shift);
        let mut scaled = Self { negative: parts.negative, magnitude: 0, first_cut: 0, more_cut: false };
        let mut at = 0_i64;
        for digit in parts.digits() {
            if at < point {
                scaled.push(digit)?;
            } else if at == point {
                scaled.first_cut = digit;
            } else {
                scaled.more_cut |= digit != 0;
            }
            at += 1;
        }
        // Only a zero survives more than twenty rounds, and a zero needs none.
        while at < point && scaled.magnitude != 0 {
            scaled.push(0)?;
            at += 1;
        }
        Some(scaled)
    }

    fn push(&mut self, digit: u8) -> Option<()> {
        let shifted = self.magnitude.checked_mul(10)?;
        self.magnitude = shifted.checked_add(u64::from(digit))?;
        Some(())
    }

    /// The absolute value of the integer part.
    pub(super) fn magnitude(self) -> u64 {
        self.magnitude
    }

    /// Whether nothing was cut off.
    pub(super) fn is_exact(self) -> bool {
        self.first_cut == 0 && !self.more_cut
    }

    /// To the nearest integer, halves away from zero as `numeric` rounds them.
    pub(super) fn rounded(self) -> Option<i64> {
        let up = u64::from(self.first_cut >= 5);
        signed(self.negative, self.magnitude.checked_add(up)?)
    }

    /// To the next integer below.
    pub(super) fn floored(self) -> Option<i64> {
        let down = u64::from(self.negative && !self.is_exact());
        signed(self.negative, self.magnitude.checked_add(down)?)
    }
}

fn signed(negative: bool, magnitude: u64) -> Option<i64> {
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// How many digits `number` has when `jsonb` writes it out; `None` if `numeric` cannot hold it.
pub(super) fn numeric_digits(number: &str) -> Option<usize> {
    let parts = Parts::split(number);
    if parts.exponent.abs() > NUMERIC_EXPONENT {
        return None;
    }
    let fraction = (parts.fraction.len() as i64 - parts.exponent).max(0);
    let leading_zeros = parts.digits().take_while(|&digit| digit == 0).count();
    let all_zero = leading_zeros == parts.whole.len() + parts.fraction.len();
    let whole =
        if all_zero { 0 } else { (parts.whole.len() as i64 - leading_zeros as i64 + parts.exponent).max(0) };
    if fraction > NUMERIC_FRACTION_DIGITS || whole > NUMERIC_WHOLE_DIGITS {
        return None;
    }
    usize::try_from(whole + fraction).ok()
}

/// A JSON number taken apart.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Parts<'a> {
    fn split(number: &'a str) -> Self {
        let (negative, number) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number),
        };
        let (mantissa, exponent) = match number.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)),
            None => (number, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Self { negative, whole, fraction, exponent }
    }

    fn digits(&self) -> impl Iterator<Item = u8> + use<'a> {
        let digits = self.whole.bytes().chain(self.fraction.bytes());
        digits.map(|byte| byte.wrapping_sub(b'0'))
    }
}

/// An exponent of any length; one that is absurdly large stays absurdly large.
fn parse_exponent(text: &str) -> i64 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let size = digits.bytes().fold(0_i64, |size, byte| {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        size.saturating_mul(10).saturating_add(digit)
    });
    // Halved so that adding the length of any text cannot overflow.
    let size = size.min(i64::MAX / 2);
    if negative { -size } else { size }
}

#[cfg(test)]
mod tests;
