//! Made-up web traffic that looks like the real thing: a few busy orgs and many quiet ones, popular
//! and rare paths, slow searches, bots, errors. The same seed gives the same traffic for ever.

mod site;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::event::{Event, rfc3339};
use site::{HOSTS, REFERRERS, ROUTES, Route, USER_AGENTS};

/// How often an org of a rank is seen falls with its rank to this power.
const ORG_SKEW: f64 = 0.7;

/// One made-up request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which org it belongs to: an index below the number of orgs.
    pub org: usize,
    /// Microseconds since the epoch.
    pub created_at: i64,
    pub host: &'static str,
    pub method: &'static str,
    pub path: String,
    pub status: u16,
    /// Milliseconds.
    pub response_time: u32,
    /// Bytes.
    pub response_size: u64,
    pub user_agent: &'static str,
    pub referrer: Option<&'static str>,
    pub ip_address: String,
}

impl Request {
    /// The request as Tailstream ingests it.
    pub fn event(&self) -> Event<'_> {
        Event {
            created_at: rfc3339(self.created_at),
            host: self.host,
            method: self.method,
            path: &self.path,
            status: self.status,
            response_time: Some(self.response_time),
            response_size: Some(self.response_size),
            user_agent: Some(self.user_agent),
            referrer: self.referrer,
            ip_address: Some(&self.ip_address),
            remote_host: None,
            protocol: None,
            user: None,
        }
    }

    pub fn to_json(&self) -> anyhow::Result<String> {
        self.event().to_json()
    }
}

/// Requests in the order of their time, spread evenly over a span. An iterator, so that millions of
/// them need no memory.
#[derive(Clone, Debug)]
pub struct Traffic {
    rng: Xoshiro256PlusPlus,
    /// The share of orgs up to each one.
    org_shares: Vec<f64>,
    start: i64,
    end: i64,
    total: u64,
    made: u64,
}

impl Traffic {
    /// `total` requests of `orgs` orgs from `start` to before `end` (microseconds since the epoch).
    pub fn new(seed: u64, orgs: usize, start: i64, end: i64, total: u64) -> Self {
        let mut sum = 0.0;
        let org_shares = (1..=orgs.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-ORG_SKEW);
                sum
            })
            .collect();
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self { rng, org_shares, start, end: end.max(start), total, made: 0 }
    }

    fn time(&mut self) -> i64 {
        let span = (self.end - self.start) as f64;
        let position = (self.made as f64 + self.rng.random::<f64>()) / self.total as f64;
        // Rounding may reach the end, which is not part of the span.
        let latest = (self.end - 1).max(self.start);
        (self.start + (span * position) as i64).min(latest)
    }

    fn org(&mut self) -> usize {
        let sum = self.org_shares.last().copied().unwrap_or_default();
        let at = self.rng.random::<f64>() * sum;
        self.org_shares.partition_point(|share| *share <= at).min(self.org_shares.len() - 1)
    }

    fn route(&mut self) -> &'static Route {
        let total: u32 = ROUTES.iter().map(|route| route.weight).sum();
        let mut at = self.rng.random_range(0..total);
        ROUTES
            .iter()
            .find(|route| match at.checked_sub(route.weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            })
            .unwrap_or(&ROUTES[0])
    }

    fn status(&mut self, method: &str) -> u16 {
        match self.rng.random_range(0..1000) {
            0..880 if method == "POST" => 201,
            0..880 => 200,
            880..925 => 304,
            925..945 => 302,
            945..980 => 404,
            980..990 => 403,
            990..993 => 429,
            993..998 => 500,
            _ => 503,
        }
    }

    /// Most requests are near the fastest, a few take very long.
    fn response_time(&mut self, fastest: u32) -> u32 {
        let slowness = 1.0 / (1.0 - self.rng.random::<f64>() * 0.995);
        (f64::from(fastest) * slowness) as u32 + self.rng.random_range(0..4)
    }

    /// Addresses that are set aside for documentation.
    fn ip_address(&mut self) -> String {
        let last = self.rng.random_range(1..255);
        match self.rng.random_range(0..4) {
            0 => format!("192.0.2.{last}"),
            1 => format!("198.51.100.{last}"),
            2 => format!("203.0.113.{last}"),
            _ => format!("2001:db8::{last:x}"),
        }
    }

    fn pick<T: Copy, const N: usize>(&mut self, from: &[T; N]) -> T {
        from[self.rng.random_range(0..N)]
    }
}

impl Iterator for Traffic {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.made >= self.total {
            return None;
        }
        let created_at = self.time();
        self.made += 1;
        let route = self.route();
        let number = self.rng.random_range(1..5000);
        let status = self.status(route.method);
        let has_body = !matches!(status, 302 | 304);
        Some(Request {
            org: self.org(),
            created_at,
            host: self.pick(&HOSTS),
            method: route.method,
            path: route.path.replace("{}", &number.to_string()),
            status,
            response_time: self.response_time(route.fastest),
            response_size: if has_body {
                route.size + u64::from(self.rng.random_range(0..800_u32))
            } else {
                0
            },
            user_agent: self.pick(&USER_AGENTS),
            referrer: self.pick(&REFERRERS),
            ip_address: self.ip_address(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.total - self.made).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn some() -> Vec<Request> {
        Traffic::new(7, 5, 0, HOUR, 5_000).collect()
    }

    #[test]
    fn a_seed_gives_the_same_for_ever() {
        assert_eq!(some(), some());
        assert_ne!(some()[0], Traffic::new(8, 5, 0, HOUR, 5_000).next().unwrap());
    }

    #[test]
    fn it_is_in_order_inside_its_span() {
        let requests = some();
        assert_eq!(requests.len(), 5_000);
        assert!(requests.is_sorted_by_key(|request| request.created_at));
        assert!(requests.iter().all(|request| (0..HOUR).contains(&request.created_at)));
    }

    #[test]
    fn it_looks_like_traffic() {
        let requests = some();
        let count =
            |wanted: &dyn Fn(&Request) -> bool| requests.iter().filter(|request| wanted(request)).count();
        assert!((0..5).all(|org| count(&|request| request.org == org) > 200));
        assert!(count(&|request| request.org == 0) > count(&|request| request.org == 4));
        assert!(count(&|request| request.status >= 500) > 10);
        assert!(count(&|request| request.status < 300) > 4_000);
        assert!(count(&|request| request.response_time > 500) > 10);
        assert!(requests.iter().all(|request| request.ip_address.parse::<std::net::IpAddr>().is_ok()));
    }

    #[test]
    fn degenerate_spans() {
        assert_eq!(Traffic::new(1, 0, 5, 5, 3).count(), 3);
        assert_eq!(Traffic::new(1, 1, 5, 0, 0).count(), 0);
    }
}
