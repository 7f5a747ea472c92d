//! What an IP address says of where it is: which network it belongs to, and whether a peer may be dialled there.
//!
//! The ranges are those of the IANA registries of special-purpose addresses (RFC 6890). This file never resolves a name, looks at an
//! interface or connects.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

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

/// A range of addresses, written as one of them and the length of what they have in common: `192.0.2.0/24`, `2001:db8::/32`, or a
/// single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpNetwork {
    first: IpAddr,
    bits: u8,
}

/// A text that is no [`IpNetwork`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed address or network {found:?}: {why}")]
pub struct IpNetworkError {
    found: String,
    why: &'static str,
}

impl IpNetwork {
    /// Whether an address is in it. An IPv4 address is the same however it is written.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.first.is_ipv4() && masked(ip, self.bits) == bits_of(self.first)
    }
}

impl From<IpAddr> for IpNetwork {
    fn from(ip: IpAddr) -> Self {
        let first = ip.to_canonical();
        let bits = if first.is_ipv4() { 32 } else { 128 };
        Self { first, bits }
    }
}

impl FromStr for IpNetwork {
    type Err = IpNetworkError;

    fn from_str(text: &str) -> Result<Self, IpNetworkError> {
        let wrong = |why| IpNetworkError {
            found: text.chars().take(60).collect(),
            why,
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address
            .parse()
            .map_err(|_| wrong("this is no IP address"))?;
        let Some(bits) = bits else {
            return Ok(first.into());
        };
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits
            .parse()
            .ok()
            .filter(|bits| *bits <= most)
            .ok_or_else(|| wrong("after the slash comes a number of bits, at most 32 or 128"))?;
        if masked(first, bits) != bits_of(first) {
            return Err(wrong("the address has bits beyond those"));
        }
        Ok(Self { first, bits })
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

fn bits_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The first so many bits of an address.
fn masked(ip: IpAddr, bits: u8) -> u128 {
    let width: u32 = if ip.is_ipv4() { 32 } else { 128 };
    let rest = width.saturating_sub(u32::from(bits));
    let kept = u128::MAX.checked_shl(rest).unwrap_or(0);
    bits_of(ip) & kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_it_says_and_no_others() {
        let has = |network: &str, address: &str| {
            let network: Result<IpNetwork, _> = network.parse();
            network.is_ok_and(|network| network.contains(ip(address)))
        };
        assert!(has("192.0.2.0/24", "192.0.2.200") && has("192.0.2.0/24", "::ffff:192.0.2.1"));
        assert!(!has("192.0.2.0/24", "192.0.3.0") && !has("192.0.2.0/24", "2001:db8::1"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.8"));
        assert!(has("0.0.0.0/0", "203.0.113.1") && !has("0.0.0.0/0", "::1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("::/0", "2001:db8::1") && has("::1", "::1") && !has("::1", "::2"));
        for wrong in [
            "",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.1/24",
            "::/129",
            "::1/64",
            "node.example",
            "1.2.3/8",
            "192.0.2.0/-1",
        ] {
            assert!(wrong.parse::<IpNetwork>().is_err(), "{wrong}");
        }
    }

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
