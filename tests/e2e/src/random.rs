//! Seeds, and how long random tests go on.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

/// A source of random numbers that can be had again.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    rng: Xoshiro256PlusPlus,
}

impl Random {
    /// From `TAILSTREAM_SEED` or the clock; prints the seed, which the test runner shows on failure.
    pub fn new(test: &str) -> Self {
        let seed = env::var("TAILSTREAM_SEED")
            .ok()
            .map(|seed| seed.parse().expect("TAILSTREAM_SEED is a number"))
            .unwrap_or_else(|| {
                let clock = SystemTime::now().duration_since(UNIX_EPOCH);
                clock.expect("a clock after 1970").as_nanos() as u64
            });
        println!("{test}: run again with TAILSTREAM_SEED={seed}");
        Self::seeded(seed)
    }

    fn seeded(seed: u64) -> Self {
        Self { seed, rng: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// An independent source for one of several threads.
    pub fn fork(&self, number: u64) -> Self {
        Self::seeded(self.seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// From 0 up to, not including, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    pub fn between(&mut self, first: i64, last: i64) -> i64 {
        self.rng.random_range(first..=last)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

/// How long a random test goes on that takes `seconds` by itself.
pub fn budget(seconds: f64) -> Duration {
    let own = env::var("TAILSTREAM_TEST_SECONDS").ok();
    let own = own.map(|own| own.parse().expect("TAILSTREAM_TEST_SECONDS is a number"));
    let soak = env::var("TAILSTREAM_SOAK").is_ok_and(|soak| soak == "1");
    Duration::from_secs_f64(own.unwrap_or(seconds) * if soak { 40.0 } else { 1.0 })
}
