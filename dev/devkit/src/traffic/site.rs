//! The made-up site that the traffic goes to.

pub const HOSTS: [&str; 4] = ["web-01", "web-02", "web-03", "web-04"];

pub const USER_AGENTS: [&str; 7] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.5.0",
];

pub const REFERRERS: [Option<&str>; 5] = [
    None,
    None,
    Some("https://www.google.com/"),
    Some("https://shop.example.com/"),
    Some("https://news.example.org/item?id=4711"),
];

/// A page of the made-up site. `{}` in its path becomes a number.
pub struct Route {
    pub weight: u32,
    pub method: &'static str,
    pub path: &'static str,
    /// Milliseconds that the fastest requests take.
    pub fastest: u32,
    /// Bytes of a typical answer.
    pub size: u64,
}

const fn route(weight: u32, method: &'static str, path: &'static str, fastest: u32, size: u64) -> Route {
    Route { weight, method, path, fastest, size }
}

pub const ROUTES: [Route; 10] = [
    route(22, "GET", "/", 8, 14_200),
    route(18, "GET", "/products/{}", 12, 21_800),
    route(14, "GET", "/api/v1/products/{}", 4, 1_900),
    route(12, "GET", "/assets/app-{}.js", 1, 184_000),
    route(9, "GET", "/search?q=item+{}", 35, 9_400),
    route(8, "POST", "/api/v1/cart", 15, 420),
    route(6, "GET", "/images/{}.webp", 2, 96_000),
    route(5, "POST", "/api/v1/checkout", 60, 760),
    route(4, "GET", "/account/orders/{}", 18, 7_300),
    route(2, "DELETE", "/api/v1/cart/{}", 9, 0),
];
