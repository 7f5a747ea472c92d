//! Where a peer is: an IP address, a DNS name or a Tor v3 onion service, each with a port; and who says so.
//!
//! An address is a name for a place, nothing more. This file never resolves a name, connects, or asks whether somebody listens there.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::error::{Culprit, Retry};
use crate::routable::is_routable;
use sha3::{Digest, Sha3_256};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// Bytes behind an onion address: 32 of the service's key, two of the checksum, one of the version (Tor rend-spec-v3 § 6).
const ONION_LEN: usize = 35;

/// Characters of the same: eight for five bytes.
const ONION_TEXT_LEN: usize = 56;

/// The only version of onion services that the network still knows.
const ONION_VERSION: u8 = 3;

/// RFC 4648, in lower case as Tor writes it.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Where a peer may be dialled, written `HOST:PORT`.
///
/// ```
/// use pilotlight::address::PeerAddress;
/// let name: PeerAddress = "Node.Example:9735".parse()?;
/// assert_eq!(name.to_string(), "node.example:9735");
/// assert!("2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wie.onion:9735".parse::<PeerAddress>().is_err());
/// # Ok::<(), pilotlight::address::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerAddress {
    /// An IP address, IPv6 in brackets.
    Ip(SocketAddr),
    /// A name, looked up anew at each dial.
    Dns {
        /// The name.
        name: DnsName,
        /// 1 to 65535.
        port: u16,
    },
    /// A hidden service of Tor's, which only a proxy reaches.
    Onion {
        /// The service.
        service: OnionService,
        /// 1 to 65535.
        port: u16,
    },
}

/// A DNS name in lower case, without the dot at its end: labels of 1 to 63 letters, digits, `-` and `_`, 253 characters in all.
/// Never one below `onion`, which DNS must not be asked for (RFC 7686).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Arc<str>);

/// A Tor v3 onion service whose checksum and version have been checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnionService([u8; ONION_LEN]);

/// Who says that a peer is somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressOrigin {
    /// The operator, by hand: it is dialled wherever it leads, but never to ourselves.
    ByHand,
    /// A list that somebody else wrote, or gossip: it is dialled only if it is globally routable, or an onion service.
    Learned,
}

impl AddressOrigin {
    /// The label in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByHand => "by_hand",
            Self::Learned => "learned",
        }
    }
}

/// An address, and who says that the peer is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KnownAddress {
    /// Where.
    pub address: PeerAddress,
    /// Who says so.
    pub origin: AddressOrigin,
}

/// Which part of a `HOST:PORT` is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing stands before the port.
    #[error("HOST is missing")]
    NoHost,
    /// No colon separates a port.
    #[error("PORT is missing: Lightning's usual one is 9735")]
    NoPort,
    /// It is not 1 to 65535.
    #[error("PORT {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// It is none of the kinds that there are.
    #[error(
        "HOST {0:?} is neither an IP address, a DNS name nor an onion service (an IPv6 address stands in brackets)"
    )]
    Host(String),
    /// It ends in `.onion`, and is no service's name.
    #[error("HOST {host:?} is not an onion service: {fault}")]
    Onion {
        /// What was written.
        host: String,
        /// What is wrong with it.
        fault: OnionFault,
    },
    /// An address that no peer can be dialled at.
    #[error("HOST {0} is not the address of one machine")]
    NotOne(IpAddr),
}

/// What is wrong with an onion service's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnionFault {
    /// Sixteen characters: of the kind that Tor has not carried since 2021.
    #[error("it is of version 2, which Tor does not carry any more")]
    Old,
    /// Not 56 characters.
    #[error("a name has {ONION_TEXT_LEN} characters before .onion, this one has {0}")]
    Length(usize),
    /// A character that base32 does not have.
    #[error("only the letters a to z and the digits 2 to 7 occur in it")]
    Alphabet,
    /// The checksum does not fit the key: a character is wrong.
    #[error("its checksum is wrong, so a character must be")]
    Checksum,
    /// Another version than 3.
    #[error("it is of version {0}; only version {ONION_VERSION} is known")]
    Version(u8),
}

impl AddressError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Onion { .. } => "Tor rend-spec-v3 § 6",
            _ => "an address is HOST:PORT",
        }
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl PeerAddress {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Dns { port, .. } | Self::Onion { port, .. } => *port,
        }
    }

    /// Whether only Tor reaches it.
    pub fn is_onion(&self) -> bool {
        matches!(self, Self::Onion { .. })
    }

    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Dns { .. } | Self::Onion { .. } => None,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl PartialEq<SocketAddr> for PeerAddress {
    fn eq(&self, other: &SocketAddr) -> bool {
        matches!(self, Self::Ip(address) if address == other)
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match (is_one_machine(address.ip()), address.port()) {
                (false, _) => Err(AddressError::NotOne(address.ip())),
                (true, 0) => Err(AddressError::Port("0".to_owned())),
                (true, _) => Ok(Self::Ip(address)),
            };
        }
        if let Ok(IpAddr::V6(_)) = text.parse() {
            // Its last group would pass for a port.
            return Err(AddressError::Host(shown(text)));
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        if port.is_empty() {
            return Err(AddressError::NoPort);
        }
        let plain = port.bytes().all(|digit| digit.is_ascii_digit());
        let number = port.parse().ok().filter(|port| plain && *port != 0);
        let port = number.ok_or_else(|| AddressError::Port(shown(port)))?;
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if name.rsplit('.').next() == Some("onion") {
            let service = name.parse().map_err(|fault| AddressError::Onion {
                host: shown(host),
                fault,
            })?;
            return Ok(Self::Onion { service, port });
        }
        let name = DnsName::checked(name).ok_or_else(|| AddressError::Host(shown(host)))?;
        Ok(Self::Dns { name, port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Dns { name, port } => write!(f, "{name}:{port}"),
            Self::Onion { service, port } => write!(f, "{service}:{port}"),
        }
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not "any", not many.
pub(crate) fn is_one_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// As much of what somebody wrote as fits into an error.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl DnsName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn checked(name: String) -> Option<Self> {
        let label = |label: &str| {
            let usable = label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            usable && (1..=63).contains(&label.len())
        };
        // A name of digits and dots only was meant to be an IPv4 address; so was one whose last part is a number, and some
        // resolvers would read it as one.
        let last = name.rsplit('.').next().unwrap_or_default();
        let named = last.bytes().any(|byte| !byte.is_ascii_digit()) && !is_hex_number(last);
        (named && name.len() <= 253 && name.split('.').all(label)).then(|| Self(name.into()))
    }
}

/// `0x7f` and the like: old resolvers take them for parts of an IPv4 address.
fn is_hex_number(label: &str) -> bool {
    label
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl OnionService {
    /// The service with an Ed25519 public key. Whether the bytes are one, the proxy finds out.
    pub fn of_key(key: [u8; 32]) -> Self {
        let [first, second] = onion_checksum(&key, ONION_VERSION);
        let mut bytes = [0; ONION_LEN];
        let tail = [first, second, ONION_VERSION];
        for (to, from) in bytes.iter_mut().zip(key.into_iter().chain(tail)) {
            *to = from;
        }
        Self(bytes)
    }
}

/// The first two bytes of `SHA3-256(".onion checksum" | key | version)`.
fn onion_checksum(key: &[u8; 32], version: u8) -> [u8; 2] {
    let mut sha = Sha3_256::new();
    sha.update(b".onion checksum");
    sha.update(key);
    sha.update([version]);
    let [first, second, ..] = <[u8; 32]>::from(sha.finalize());
    [first, second]
}

impl FromStr for OnionService {
    type Err = OnionFault;

    /// Reads `….onion`, or the part before the dot alone.
    fn from_str(text: &str) -> Result<Self, OnionFault> {
        let name = text.strip_suffix(".onion").unwrap_or(text);
        match name.len() {
            ONION_TEXT_LEN => {}
            16 => return Err(OnionFault::Old),
            other => return Err(OnionFault::Length(other)),
        }
        let mut bytes = [0; ONION_LEN];
        for (five, eight) in bytes
            .chunks_exact_mut(5)
            .zip(name.as_bytes().chunks_exact(8))
        {
            let bits = eight.iter().try_fold(0_u64, |bits, letter| {
                let digit = BASE32
                    .iter()
                    .position(|known| *known == letter.to_ascii_lowercase())?;
                Some(bits << 5 | u64::try_from(digit).ok()?)
            });
            let [_, _, _, read @ ..] = bits.ok_or(OnionFault::Alphabet)?.to_be_bytes();
            for (to, from) in five.iter_mut().zip(read) {
                *to = from;
            }
        }
        let [key @ .., first, second, version] = bytes;
        if version != ONION_VERSION {
            return Err(OnionFault::Version(version));
        }
        if onion_checksum(&key, version) != [first, second] {
            return Err(OnionFault::Checksum);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for OnionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for five in self.0.chunks(5) {
            let bits = five
                .iter()
                .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            for place in (0..8).rev() {
                let digit = usize::try_from(bits >> (5 * place) & 31).unwrap_or_default();
                let letter = BASE32.get(digit).copied().unwrap_or_default();
                write!(f, "{}", char::from(letter))?;
            }
        }
        f.write_str(".onion")
    }
}

impl fmt::Debug for OnionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KnownAddress {
    /// An address from a list that somebody else wrote, or from gossip.
    pub fn learned(address: impl Into<PeerAddress>) -> Self {
        Self {
            address: address.into(),
            origin: AddressOrigin::Learned,
        }
    }

    /// Whether it may be dialled, for what is known before a name is looked up; `onions`: whether there is a proxy to Tor.
    pub(crate) fn is_dialable(&self, onions: bool) -> bool {
        match &self.address {
            PeerAddress::Ip(address) => {
                self.origin == AddressOrigin::ByHand || is_routable(address.ip())
            }
            PeerAddress::Dns { .. } => true,
            PeerAddress::Onion { .. } => onions,
        }
    }
}

/// By hand.
impl<A: Into<PeerAddress>> From<A> for KnownAddress {
    fn from(address: A) -> Self {
        Self {
            address: address.into(),
            origin: AddressOrigin::ByHand,
        }
    }
}

impl FromStr for KnownAddress {
    type Err = AddressError;

    /// What somebody writes, by hand.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.parse::<PeerAddress>().map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Services that are known to exist: their operators publish these names.
    const REAL: [&str; 3] = [
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
        "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion",
        "facebookwkhpilnemxj7asaniu7vnjjbiltxjqhye3mhbshg7kx5tfyd.onion",
    ];

    #[test]
    fn ip_addresses_names_and_onion_services_are_taken() {
        for (text, shown) in [
            ("192.0.2.1:9735", "192.0.2.1:9735"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("[fe80::1%3]:9735", "[fe80::1%3]:9735"),
            ("localhost:65535", "localhost:65535"),
            ("Node.Example.:9735", "node.example:9735"),
            ("1.2.3.in-addr.arpa:1", "1.2.3.in-addr.arpa:1"),
        ] {
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), shown);
        }
        for name in REAL {
            let address: PeerAddress = format!("{}:9735", name.to_uppercase()).parse().unwrap();
            assert!(address.is_onion());
            assert_eq!(address.to_string(), format!("{name}:9735"));
            assert_eq!(address.port(), 9735);
        }
    }

    #[test]
    fn an_error_names_the_part() {
        use AddressError as E;
        let onion = |host: &str, fault| E::Onion {
            host: host.into(),
            fault,
        };
        let short = "a".repeat(55) + ".onion";
        for (text, error) in [
            ("", E::NoPort),
            ("host", E::NoPort),
            ("host:", E::NoPort),
            (":9735", E::NoHost),
            ("host:0", E::Port("0".into())),
            ("192.0.2.1:0", E::Port("0".into())),
            ("host:+1", E::Port("+1".into())),
            ("host:65536", E::Port("65536".into())),
            ("host:lnd", E::Port("lnd".into())),
            ("2001:db8::1", E::Host("2001:db8::1".into())),
            ("2001:db8::1:9735", E::Host("2001:db8::1:9735".into())),
            ("[::g]:1", E::Host("[::g]".into())),
            ("1.2.3:1", E::Host("1.2.3".into())),
            ("a.1:1", E::Host("a.1".into())),
            ("0x7f000001:1", E::Host("0x7f000001".into())),
            ("a.0x1:1", E::Host("a.0x1".into())),
            ("ho st:1", E::Host("ho st".into())),
            ("a..b:1", E::Host("a..b".into())),
            ("onion:1", onion("onion", OnionFault::Length(5))),
            ("abc.onion:9735", onion("abc.onion", OnionFault::Length(3))),
            (
                "expyuzz4wqqyqhjn.onion:9735",
                onion("expyuzz4wqqyqhjn.onion", OnionFault::Old),
            ),
            (&format!("{short}:1"), onion(&short, OnionFault::Length(55))),
            ("0.0.0.0:9735", E::NotOne("0.0.0.0".parse().unwrap())),
            ("[::]:9735", E::NotOne("::".parse().unwrap())),
            ("224.0.0.1:9735", E::NotOne("224.0.0.1".parse().unwrap())),
            (
                "[::ffff:0.0.0.0]:1",
                E::NotOne("::ffff:0.0.0.0".parse().unwrap()),
            ),
        ] {
            assert_eq!(text.parse::<PeerAddress>(), Err(error), "{text}");
        }
    }

    #[test]
    fn one_wrong_character_is_noticed_wherever_it_is() {
        // Two bytes of a checksum let one error in 65,536 pass.
        let mut unseen = Vec::new();
        for name in REAL {
            let (text, _) = name.split_once('.').unwrap();
            for place in 0..text.len() {
                for other in BASE32.iter().copied().chain(*b"018=_ ") {
                    let mut wrong = text.to_owned().into_bytes();
                    if std::mem::replace(wrong.get_mut(place).unwrap(), other) == other {
                        continue;
                    }
                    let wrong = String::from_utf8(wrong).unwrap();
                    let Err(fault) = wrong.parse::<OnionService>() else {
                        unseen.push(wrong);
                        continue;
                    };
                    let fits = match fault {
                        OnionFault::Alphabet => !BASE32.contains(&other),
                        // The last character and half of the one before it are the version.
                        OnionFault::Version(_) => place >= 54,
                        OnionFault::Checksum => place < 55,
                        _ => false,
                    };
                    assert!(fits, "{wrong}: {fault}");
                }
            }
        }
        assert!(unseen.len() <= 1, "{unseen:?}");
        assert_eq!(
            "é".repeat(28).parse::<OnionService>(),
            Err(OnionFault::Alphabet)
        );
    }

    #[test]
    fn what_is_learned_is_dialled_only_where_anybody_could_and_what_is_by_hand_everywhere() {
        let onion = format!("{}:9735", REAL[0]);
        for (text, by_hand, learned) in [
            ("1.1.1.1:9735", true, true),
            ("192.168.1.1:9735", true, false),
            ("[::ffff:10.0.0.1]:9735", true, false),
            ("node.example:9735", true, true),
            (onion.as_str(), false, false),
        ] {
            let address: PeerAddress = text.parse().unwrap();
            let known = KnownAddress::from(address.clone());
            assert_eq!(known.is_dialable(false), by_hand, "{text}");
            let known = KnownAddress::learned(address);
            assert_eq!(known.is_dialable(false), learned, "{text}");
        }
        assert!(KnownAddress::learned(onion.parse::<PeerAddress>().unwrap()).is_dialable(true));
    }

    fn addresses() -> impl Strategy<Value = PeerAddress> {
        let one = |ip: &IpAddr| is_one_machine(*ip);
        let ips = any::<IpAddr>().prop_filter("one machine", one);
        prop_oneof![
            (ips, 1_u16..).prop_map(|(ip, port)| PeerAddress::Ip(SocketAddr::new(ip, port))),
            (
                "[a-z0-9_-]{1,63}(\\.[a-z0-9_-]{1,40}){0,3}\\.[a-z]{1,20}",
                1_u16..
            )
                .prop_filter_map("no onion", |(name, port)| Some(PeerAddress::Dns {
                    name: DnsName::checked(name).filter(|name| !name.0.ends_with(".onion"))?,
                    port,
                })),
            (any::<[u8; 32]>(), 1_u16..).prop_map(|(key, port)| PeerAddress::Onion {
                service: OnionService::of_key(key),
                port,
            }),
        ]
    }

    proptest! {
        #[test]
        fn any_address_is_read_back_as_it_is_written(address in addresses()) {
            prop_assert_eq!(address.to_string().parse::<PeerAddress>(), Ok(address));
        }

        #[test]
        fn no_text_panics_and_what_is_taken_is_written_in_one_way(text in "\\PC{0,300}|[a-z0-9.:\\[\\]%x]{0,80}|[a-z2-7]{56}\\.onion:[0-9]{1,6}") {
            if let Ok(address) = text.parse::<PeerAddress>() {
                prop_assert_eq!(address.to_string().parse::<PeerAddress>(), Ok(address));
            }
        }

        #[test]
        fn the_order_is_total_and_agrees_with_equality(one in addresses(), other in addresses()) {
            prop_assert_eq!(one.cmp(&other) == std::cmp::Ordering::Equal, one == other);
            prop_assert_eq!(one.cmp(&other), other.cmp(&one).reverse());
        }
    }
}
