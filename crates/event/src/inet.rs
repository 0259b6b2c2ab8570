//! IP addresses with an optional prefix length, as PostgreSQL's `inet` has them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An address and the length of its prefix; the whole address for a single host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inet {
    /// The four bytes of the address in network order, and a prefix of 0 to 32 bits.
    V4([u8; 4], u8),
    /// The sixteen bytes of the address in network order, and a prefix of 0 to 128 bits.
    V6([u8; 16], u8),
}

/// PostgreSQL's numbers for the address families, the first byte of a stored `inet` (`utils/inet.h`).
pub const STORED_V4: u8 = 2;
pub const STORED_V6: u8 = 3;

impl Inet {
    /// From the bytes of a stored `inet` behind its length: the family, the length of the prefix, the address. `None` if
    /// they are something else.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [STORED_V4, prefix @ ..=32, ref address @ ..] => Some(Self::V4(address.try_into().ok()?, prefix)),
            [STORED_V6, prefix @ ..=128, ref address @ ..] => {
                Some(Self::V6(address.try_into().ok()?, prefix))
            }
            _ => None,
        }
    }

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
        // Digits by themselves: formatting with a pattern takes several times as long, and each mirrored event has one.
        let mut digits = itoa::Buffer::new();
        let (prefix, host) = match *self {
            Self::V4(octets, prefix) => {
                for (at, octet) in octets.into_iter().enumerate() {
                    f.write_str(if at > 0 { "." } else { "" })?;
                    f.write_str(digits.format(octet))?;
                }
                (prefix, 32)
            }
            Self::V6(octets, prefix) => {
                Ipv6Addr::from(octets).fmt(f)?;
                (prefix, 128)
            }
        };
        if prefix == host {
            return Ok(());
        }
        f.write_str("/")?;
        f.write_str(digits.format(prefix))
    }
}

#[cfg(test)]
mod tests;
