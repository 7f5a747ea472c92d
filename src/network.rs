//! What an IP address says of where it is: which network it belongs to, and whether a peer may be dialled there.
//!
//! The ranges are those of the IANA registries of special-purpose addresses (RFC 6890). This file never resolves a name, looks at an
//! interface or connects.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A /24 (IPv4) or a /48 (IPv6): what one party easily has all addresses of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subnet {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first six bytes.
    V6([u8; 6]),
}

impl Subnet {
    /// The one that an address is in. An IPv4 address is the same however it is written.
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => Self::V6(ip.octets().first_chunk().copied().unwrap_or_default()),
        }
    }
}

/// One party's address: an IPv4 address, or a /64 (IPv6), of which any machine has all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Party(IpAddr);

impl Party {
    /// The one behind an address. An IPv4 address is the same however it is written.
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.into()),
            IpAddr::V6(ip) => {
                let prefix = u128::from(ip) & !u128::from(u64::MAX);
                Self(Ipv6Addr::from(prefix).into())
            }
        }
    }

    /// Its address; of a /64 the first.
    pub(crate) fn ip(self) -> IpAddr {
        self.0
    }

    /// It is this machine under its usual name. Whoever comes through a Tor daemon or a proxy of this machine has this address:
    /// it stands for many parties.
    pub(crate) fn is_many(self) -> bool {
        // The loopback's /64 is ::.
        matches!(self.0, IpAddr::V4(Ipv4Addr::LOCALHOST))
            || matches!(self.0, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse()
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    #[test]
    fn a_network_and_a_party_are_the_same_however_they_are_written() {
        let subnet = |text| Subnet::of(ip(text));
        assert_eq!(subnet("192.0.2.1"), subnet("::ffff:192.0.2.200"));
        assert_ne!(subnet("192.0.2.1"), subnet("192.0.3.1"));
        assert_eq!(subnet("2001:db8:1::1"), subnet("2001:db8:1:ffff::1"));
        assert_ne!(subnet("2001:db8:1::1"), subnet("2001:db8:2::1"));
        let party = |text| Party::of(ip(text));
        assert_eq!(party("192.0.2.1"), party("::ffff:192.0.2.1"));
        assert_ne!(party("192.0.2.1"), party("192.0.2.2"));
        assert_eq!(party("2001:db8:1::1"), party("2001:db8:1::ffff:1"));
        assert_ne!(party("2001:db8:1::1"), party("2001:db8:1:1::1"));
        assert!(party("127.0.0.1").is_many() && party("::1").is_many());
        assert!(!party("127.0.0.2").is_many() && !party("2001:db8::1").is_many());
        assert_eq!(party("2001:db8:1::1").to_string(), "2001:db8:1::/64");
    }
}
