//! IP addresses with an optional prefix length, as PostgreSQL's `inet` has them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and the length of its prefix; the whole address for a single host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inet {
    /// The four bytes of the address in network order, and a prefix of 0 to 32 bits.
    V4([u8; 4], u8),
    /// The sixteen bytes of the address in network order, and a prefix of 0 to 128 bits.
    V6([u8; 16], u8),
}

impl Inet {
    /// Reads `address` or `address/prefix`; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(parse_prefix(prefix)?)),
            None => (text, None),
        };
        let inet = match address.parse().ok()? {
            IpAddr::V4(v4) => Self::V4(v4.octets(), prefix.unwrap_or(32)),
            IpAddr::V6(v6) => Self::V6(v6.octets(), prefix.unwrap_or(128)),
        };
        match inet {
            Self::V4(_, 33..) | Self::V6(_, 129..) => None,
            valid => Some(valid),
        }
    }
}

/// Digits only: the integer parser alone would take a sign as well.
fn parse_prefix(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl fmt::Display for Inet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4(octets, 32) => Ipv4Addr::from(octets).fmt(f),
            Self::V4(octets, prefix) => write!(f, "{}/{prefix}", Ipv4Addr::from(octets)),
            Self::V6(octets, 128) => Ipv6Addr::from(octets).fmt(f),
            Self::V6(octets, prefix) => write!(f, "{}/{prefix}", Ipv6Addr::from(octets)),
        }
    }
}

#[cfg(test)]
mod tests;
