//! The times at which the events of a playback are shown.

use crate::replay::token::Clock;

/// The pace of a playback.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Seconds of event time for each second of playback.
    pub speed: f64,
    /// Longest time between two events in nanoseconds.
    pub max_gap: i64,
    /// Shortest time between two events in nanoseconds.
    pub min_gap: i64,
}

impl Pace {
    /// The clock at the next event, which happened this many microseconds after the last one.
    ///
    /// An event that was delayed by the rate limit does not delay later events for longer than the limit requires, because the
    /// ideal clock continues.
    pub fn next(&self, clock: Clock, elapsed: i64) -> Clock {
        let gap = (elapsed.max(0) as f64 * 1_000.0 / self.speed).min(self.max_gap as f64) as i64;
        let ideal = clock.ideal.saturating_add(gap);
        Clock { ideal, shown: ideal.max(clock.shown.saturating_add(self.min_gap)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { speed: 8.0, max_gap: 2_000_000_000, min_gap: 200_000 };

    fn shown(pace: &Pace, gaps: &[i64]) -> Vec<Clock> {
        let mut clock = Clock::default();
        let mut all = vec![clock];
        for gap in gaps {
            clock = pace.next(clock, *gap);
            all.push(clock);
        }
        all
    }

    #[test]
    fn spacing_is_divided_and_quiet_stretches_are_shortened() {
        let clocks = shown(&PACE, &[8_000_000, 3_600_000_000, 800]);
        let shown: Vec<i64> = clocks.iter().map(|clock| clock.shown).collect();
        assert_eq!(shown, [0, 1_000_000_000, 3_000_000_000, 3_000_200_000]);
    }

    #[test]
    fn a_burst_is_spread_and_caught_up_with() {
        let clocks = shown(&PACE, &[0, 0, 0, 8_000]);
        let shown: Vec<i64> = clocks.iter().map(|clock| clock.shown).collect();
        assert_eq!(shown, [0, 200_000, 400_000, 600_000, 1_000_000]);
    }

    proptest! {
        #[test]
        fn the_clock_never_runs_faster_than_it_may(gaps in prop::collection::vec(0_i64..20_000_000, 0..200)) {
            let clocks = shown(&PACE, &gaps);
            for pair in clocks.windows(2) {
                prop_assert!(pair[1].shown - pair[0].shown >= PACE.min_gap);
                prop_assert!(pair[1].ideal - pair[0].ideal <= PACE.max_gap);
                prop_assert!(pair[1].shown >= pair[1].ideal);
            }
        }
    }
}
