//! Which addresses can be those of a node that anybody may dial: the ones that the IANA's registries of special-purpose addresses
//! (RFC 6890) call globally reachable.
//!
//! For addresses from a list that somebody else wrote. It never judges one that the operator has typed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Prefixes of IPv4 that lead nowhere, or into networks of whoever dials.
const CLOSED_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Prefixes within `2000::/3` that are no host's on the Internet: those of protocols, documentation and 6to4.
const CLOSED_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether anybody could reach a node at this address.
pub(crate) fn is_routable(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !CLOSED_V4.iter().any(|(prefix, length)| {
            let differs = address.to_bits() ^ prefix.to_bits();
            differs.leading_zeros() >= *length
        }),
        IpAddr::V6(address) => {
            let global_unicast = address.to_bits() >> 125 == 1;
            global_unicast
                && !CLOSED_V6.iter().any(|(prefix, length)| {
                    let differs = address.to_bits() ^ prefix.to_bits();
                    differs.leading_zeros() >= *length
                })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_routable_unless_a_registry_says_otherwise() {
        let judge = |text: &str| is_routable(text.parse().unwrap());
        for open in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(judge(open), "{open}");
        }
        for closed in [
            "0.0.0.0",
            "10.255.255.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002::1",
            "3fff::1",
            "::ffff:127.0.0.1",
            "64:ff9b::1",
        ] {
            assert!(!judge(closed), "{closed}");
        }
    }
}
