//! Where a peer is, as a person writes it: `HOST:PORT`, HOST an IP address (IPv6 in brackets) or a DNS name.

use crate::error::{Culprit, Retry};
use crate::limits;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address whose name may still have to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Which part of a `HOST:PORT` is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostPortError {
    /// Nothing stands before the port.
    #[error("HOST is missing")]
    NoHost,
    /// No colon separates a port.
    #[error("PORT is missing: Lightning's usual one is 9735")]
    NoPort,
    /// It is not 1 to 65535.
    #[error("PORT {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// It is neither an IP address nor a DNS name.
    #[error(
        "HOST {0:?} is neither an IP address nor a DNS name (an IPv6 address stands in brackets)"
    )]
    Host(String),
    /// It is Tor's, and needs a proxy.
    #[error("HOST {0:?} is an onion address, which cannot be dialled directly")]
    Onion(String),
    /// An address that no peer can be dialled at.
    #[error("HOST {0} is not the address of one machine")]
    NotOne(IpAddr),
}

/// Why a name gave no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The resolver says no.
    #[error("the name {name} cannot be resolved: {why}")]
    Failed {
        /// The name.
        name: String,
        /// What the resolver says.
        why: String,
    },
    /// It did not answer in time.
    #[error("the name {name} was not resolved within {} s", limits::RESOLVE_DEADLINE.as_secs())]
    TimedOut {
        /// The name.
        name: String,
    },
    /// It has no address that can be dialled.
    #[error("the name {name} stands for no address that can be dialled")]
    Empty {
        /// The name.
        name: String,
    },
}

impl HostPortError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        "an address is HOST:PORT"
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl ResolveError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        "limits::RESOLVE_DEADLINE"
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        Retry::Later
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        if let Ok(IpAddr::V6(_)) = text.parse() {
            // Its last group would pass for a port.
            return Err(HostPortError::Host(shown(text)));
        }
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError::NoPort)?;
        if host.is_empty() {
            return Err(HostPortError::NoHost);
        }
        if port.is_empty() {
            return Err(HostPortError::NoPort);
        }
        let plain = port.bytes().all(|digit| digit.is_ascii_digit());
        let number = port.parse().ok().filter(|port| plain && *port != 0);
        let port = number.ok_or_else(|| HostPortError::Port(shown(port)))?;
        Ok(Self {
            host: host.parse()?,
            port,
        })
    }
}

impl FromStr for Host {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let bracketed = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let ip = match bracketed {
            Some(inner) => inner.parse().ok().map(IpAddr::V6),
            None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        if let Some(ip) = ip {
            return if is_one_machine(ip) {
                Ok(Self::Ip(ip))
            } else {
                Err(HostPortError::NotOne(ip))
            };
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.rsplit('.').next() == Some("onion") {
            return Err(HostPortError::Onion(shown(text)));
        }
        let label = |label: &str| {
            let usable = label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            usable && (1..=63).contains(&label.len())
        };
        // A name of digits and dots only was meant to be an IPv4 address.
        let named = name.bytes().any(|byte| byte.is_ascii_alphabetic());
        if named && name.len() <= 253 && name.split('.').all(label) {
            Ok(Self::Name(name))
        } else {
            Err(HostPortError::Host(shown(text)))
        }
    }
}

/// Not "any", not many.
fn is_one_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// As much of what somebody wrote as fits into an error.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl HostPort {
    /// The address, looked up if need be. Several for a name that has several; all can be dialled.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let name = match &self.host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, self.port)]),
            Host::Name(name) => name.clone(),
        };
        let lookup = tokio::net::lookup_host((name.clone(), self.port));
        let found = match tokio::time::timeout(limits::RESOLVE_DEADLINE, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                return Err(ResolveError::Failed {
                    name,
                    why: error.to_string(),
                });
            }
            Err(_) => return Err(ResolveError::TimedOut { name }),
        };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found.filter(|address| is_one_machine(address.ip())) {
            if !addresses.contains(&address) && addresses.len() < limits::ADDRESSES_MAX {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            Err(ResolveError::Empty { name })
        } else {
            Ok(addresses)
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ip_addresses_and_names_are_taken() {
        for (text, shown) in [
            ("192.0.2.1:9735", "192.0.2.1:9735"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("localhost:65535", "localhost:65535"),
            ("Node.Example.:9735", "node.example:9735"),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_error_names_the_part() {
        use HostPortError as E;
        for (text, error) in [
            ("", E::NoPort),
            ("host", E::NoPort),
            ("host:", E::NoPort),
            (":9735", E::NoHost),
            ("host:0", E::Port("0".into())),
            ("host:+1", E::Port("+1".into())),
            ("host:65536", E::Port("65536".into())),
            ("host:lnd", E::Port("lnd".into())),
            ("2001:db8::1", E::Host("2001:db8::1".into())),
            ("2001:db8::1:9735", E::Host("2001:db8::1:9735".into())),
            ("[::g]:1", E::Host("[::g]".into())),
            ("1.2.3:1", E::Host("1.2.3".into())),
            ("ho st:1", E::Host("ho st".into())),
            ("a..b:1", E::Host("a..b".into())),
            ("abc.onion:9735", E::Onion("abc.onion".into())),
            ("0.0.0.0:9735", E::NotOne("0.0.0.0".parse().unwrap())),
            ("[::]:9735", E::NotOne("::".parse().unwrap())),
            ("224.0.0.1:9735", E::NotOne("224.0.0.1".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text}");
        }
    }

    #[tokio::test]
    async fn an_ip_address_needs_no_resolver() {
        let address: HostPort = "192.0.2.1:9735".parse().unwrap();
        assert_eq!(
            address.resolve().await.unwrap(),
            ["192.0.2.1:9735".parse().unwrap()]
        );
    }
}
