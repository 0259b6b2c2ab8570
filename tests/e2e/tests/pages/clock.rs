//! When events are to be played, worked out one after the other.

use tailstream_e2e::Random;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub speed: f64,
    /// Microseconds.
    pub max_gap: i64,
    /// Events a second.
    pub max_rate: i32,
}

impl Default for Clock {
    fn default() -> Self {
        Self { speed: 8.0, max_gap: 2_000_000, max_rate: 5000 }
    }
}

/// Divisions by these have no remainder in nanoseconds.
const EVEN_SPEEDS: [f64; 7] = [0.125, 0.5, 1.0, 2.0, 8.0, 20.0, 1000.0];
const EVEN_RATES: [i32; 6] = [1, 2, 50, 1000, 5000, 1_000_000_000];
const ODD_SPEEDS: [f64; 5] = [3.0, 0.3, 7.77, 1e-4, 1e9];
const ODD_RATES: [i32; 5] = [3, 7, 30, 999, i32::MAX];
const MAX_GAPS: [i64; 6] = [0, 1, 10_000, 2_000_000, 60_000_000, 36_000_000_000];

impl Clock {
    pub fn even(random: &mut Random) -> Self {
        Self {
            speed: EVEN_SPEEDS[random.below(EVEN_SPEEDS.len())],
            max_gap: MAX_GAPS[random.below(MAX_GAPS.len())],
            max_rate: EVEN_RATES[random.below(EVEN_RATES.len())],
        }
    }

    pub fn odd(random: &mut Random) -> Self {
        Self {
            speed: ODD_SPEEDS[random.below(ODD_SPEEDS.len())],
            max_rate: ODD_RATES[random.below(ODD_RATES.len())],
            ..Self::even(random)
        }
    }

    /// When events of these times are to be played, all in microseconds.
    pub fn plays(&self, times: &[i64]) -> Vec<i64> {
        let apart = i64::from(1_000_000_000_u32.div_ceil(self.max_rate.unsigned_abs()));
        let (mut ideal, mut play) = (0_i64, 0_i64);
        let mut plays = Vec::with_capacity(times.len());
        for (number, at) in times.iter().enumerate() {
            if let Some(before) = number.checked_sub(1) {
                let gap = (at - times[before]) as f64 * 1000.0 / self.speed;
                ideal += gap.min((self.max_gap * 1000) as f64) as i64;
                play = ideal.max(play + apart);
            }
            plays.push(play / 1000);
        }
        plays
    }
}

#[test]
fn the_clock_is_a_clock() {
    let clock = |speed, max_gap, max_rate| Clock { speed, max_gap, max_rate };
    assert_eq!(clock(2.0, 1_000_000, 1000).plays(&[5, 1_000_005, 9_000_005]), [0, 500_000, 1_500_000]);
    // A burst is spread, and what follows is on time as soon as it can be.
    assert_eq!(clock(1.0, 10, 1_000_000).plays(&[0, 0, 0, 1, 9]), [0, 1, 2, 3, 9]);
    assert_eq!(clock(1.0, 10, 3).plays(&[0, 0, 0, 0]), [0, 333_333, 666_666, 1_000_000]);
    assert!(clock(1.0, 10, 3).plays(&[]).is_empty());
}
