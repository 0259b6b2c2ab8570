//! Retentions as microseconds and as text.

const SECOND: i64 = 1_000_000;
const UNITS: [(i64, &str); 4] =
    [(86_400 * SECOND, "day"), (3_600 * SECOND, "hour"), (60 * SECOND, "minute"), (SECOND, "second")];

/// The length of an interval without months, in microseconds; a day has 24 hours.
pub fn microseconds(days: i32, time: i64) -> i64 {
    i64::from(days).saturating_mul(86_400 * SECOND).saturating_add(time)
}

/// "7 days", "1 hour 30 minutes".
pub fn in_words(microseconds: i64) -> String {
    let mut rest = microseconds;
    let mut words = Vec::new();
    for (length, unit) in UNITS {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            words.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
    }
    if rest > 0 || words.is_empty() {
        words.push(format!("{rest} microseconds"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_every_unit_that_is_there() {
        assert_eq!(in_words(microseconds(7, 0)), "7 days");
        assert_eq!(in_words(microseconds(0, 3 * 3_600 * SECOND)), "3 hours");
        assert_eq!(in_words(90 * 60 * SECOND + SECOND), "1 hour 30 minutes 1 second");
        assert_eq!(in_words(1), "1 microseconds");
        assert_eq!(in_words(0), "0 microseconds");
    }

    #[test]
    fn a_day_has_24_hours() {
        assert_eq!(microseconds(1, -1), 86_400 * SECOND - 1);
    }
}
