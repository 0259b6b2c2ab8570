//! Exponential backoff between attempts.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(15);

/// Pauses that double up to 15 seconds. Each pause is shortened at random by up to half, so that workers that lost
/// the same server do not all reconnect at the same time.
#[derive(Debug, Default, Clone)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and returns the pause before the next attempt. `random` is any number.
    pub fn next(&mut self, random: u64) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.min(LONGEST);
        pause - pause.mul_f64((random % 1_000) as f64 / 2_000.0)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(0), FIRST);
        assert_eq!(backoff.next(0), FIRST * 2);
        let longest = (0..100).map(|_| backoff.next(0)).max();
        assert_eq!(longest, Some(LONGEST));
        assert!(backoff.next(999) >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next(999) < FIRST);
    }
}
