//! A connection through a SOCKS5 proxy (RFC 1928), which for us means Tor: one CONNECT, with username and password (RFC 1929).
//!
//! Written here because what matters is what is *not* offered: a client that offers "no authentication" beside username and password
//! leaves it to the proxy whether two identities share a circuit. This one offers the latter only, and a proxy that declines is an
//! error. It never resolves a name, and reads not a byte more than the proxy's answers.

use crate::address::PeerAddress;
use crate::error::{Culprit, Retry};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const USERNAME_PASSWORD: u8 = 2;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;

/// What the proxy is told so that it keeps identities apart: Tor gives each username and password a circuit of its own
/// (`IsolateSOCKSAuth`, which is on unless its operator has switched it off).
#[derive(Clone)]
pub(crate) struct Circuit(Arc<str>);

impl Circuit {
    /// A new one, from the system's randomness; `None`: it gives none.
    pub(crate) fn new() -> Option<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let name: String = crate::hex::digits(&random).map(char::from).collect();
        Some(Self(name.into()))
    }
}

/// Not the name itself: who knows it can share the circuit.
impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Circuit")
    }
}

/// Why a proxy gave no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// No connection with the proxy itself.
    #[error("the proxy {proxy} cannot be reached: {source}")]
    Unreachable {
        /// Where it should be.
        proxy: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The connection with the proxy broke before it had answered.
    #[error("the proxy broke off: {0}")]
    Broken(#[from] io::Error),
    /// It says what no SOCKS5 proxy says.
    #[error("what answers there is no SOCKS5 proxy")]
    NotSocks,
    /// It takes no username and password, so two identities might share a circuit.
    #[error("the proxy takes no username and password, so it cannot keep identities apart")]
    NoIsolation,
    /// It does not take ours.
    #[error("the proxy refuses a random username and password: it must take any")]
    Login,
    /// It does not reach the peer, or will not.
    #[error("the proxy does not reach the peer: {}", reason(*code))]
    Refused {
        /// Its reply code: RFC 1928 § 6, or one of Tor's own (`ExtendedErrors`).
        code: u8,
    },
    /// Neither it nor the peer answered in time.
    #[error("the proxy did not reach the peer within {} s", crate::limits::PROXY_DEADLINE.as_secs())]
    TimedOut,
}

impl ProxyError {
    /// Whose fault it is: the peer's if the proxy has looked for it, else that of whoever has set the proxy.
    pub fn culprit(&self) -> Culprit {
        match self {
            // Not allowed, no such command, no such kind of address: the peer has not been looked for.
            Self::Refused { code: 2 | 7 | 8 } => Culprit::Operator,
            Self::Refused { .. } | Self::TimedOut => Culprit::Peer,
            _ => Culprit::Operator,
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::TimedOut => "limits::PROXY_DEADLINE",
            Self::NoIsolation | Self::Login => "design.md § The truth about cached secrets",
            _ => "RFC 1928 § 6",
        }
    }

    /// Whether another attempt may succeed.
    pub fn retry(&self) -> Retry {
        Retry::Later
    }
}

fn reason(code: u8) -> &'static str {
    match code {
        1 => "it says no more than that it failed",
        2 => "its rules forbid it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "it took too long",
        7 => "it knows no CONNECT",
        8 => "it knows no such kind of address",
        0xf0 => "the onion service is not known to Tor",
        0xf1 => "the onion service's descriptor is invalid",
        0xf2 => "the onion service did not answer the introduction",
        0xf3 => "the meeting with the onion service failed",
        0xf4 | 0xf5 => "the onion service wants an authorisation that Tor does not have",
        0xf6 => "it is not an onion service's address",
        0xf7 => "the introduction to the onion service took too long",
        _ => "for a reason of its own",
    }
}

/// Has the proxy at the other end of `stream` connect to `target`, in the circuit of `circuit`.
pub(super) async fn connect<S>(
    stream: &mut S,
    target: &PeerAddress,
    circuit: &Circuit,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&[VERSION, 1, USERNAME_PASSWORD]).await?;
    match read(stream).await? {
        [VERSION, USERNAME_PASSWORD] => {}
        [VERSION, _] => return Err(ProxyError::NoIsolation),
        _ => return Err(ProxyError::NotSocks),
    }
    stream.write_all(&login(circuit)).await?;
    match read(stream).await? {
        [LOGIN_VERSION, 0] => {}
        [LOGIN_VERSION, _] => return Err(ProxyError::Login),
        _ => return Err(ProxyError::NotSocks),
    }
    stream.write_all(&request(target)).await?;
    let [version, code, _, kind] = read(stream).await?;
    if version != VERSION {
        return Err(ProxyError::NotSocks);
    }
    if code != 0 {
        // What follows is of no use, and some proxies leave it out.
        return Err(ProxyError::Refused { code });
    }
    // The address and the port that the proxy has bound.
    match kind {
        1 => drop(read::<6, _>(stream).await?),
        4 => drop(read::<18, _>(stream).await?),
        3 => {
            let [length] = read(stream).await?;
            let mut name = vec![0; usize::from(length).saturating_add(2)];
            stream.read_exact(&mut name).await?;
        }
        _ => return Err(ProxyError::NotSocks),
    }
    Ok(())
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The same text as username and as password: Tor looks at both together.
fn login(circuit: &Circuit) -> Vec<u8> {
    let mut bytes = vec![LOGIN_VERSION];
    for _ in 0..2 {
        counted(&mut bytes, &circuit.0);
    }
    bytes
}

fn request(target: &PeerAddress) -> Vec<u8> {
    let mut bytes = vec![VERSION, CONNECT, 0];
    match target {
        PeerAddress::Ip(address) => match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                bytes.push(1);
                bytes.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(4);
                bytes.extend(ip.octets());
            }
        },
        PeerAddress::Dns { name, .. } => {
            bytes.push(3);
            counted(&mut bytes, name.as_str());
        }
        PeerAddress::Onion { service, .. } => {
            bytes.push(3);
            counted(&mut bytes, &service.to_string());
        }
    }
    bytes.extend(target.port().to_be_bytes());
    bytes
}

/// A text after its length. None of ours is longer than the 253 characters of a DNS name.
fn counted(bytes: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    bytes.push(length);
    bytes.extend(text.bytes().take(usize::from(length)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use tokio::io::duplex;

    fn run<F: Future>(work: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(work)
    }

    /// What the client says to a proxy that answers `said` whatever it is told, what comes of it, and what is left of `said`.
    fn talk(target: &str, said: &[u8]) -> (Vec<u8>, Result<(), ProxyError>, Vec<u8>) {
        let (mut ours, mut theirs) = duplex(4096);
        run(async {
            theirs.write_all(said).await.unwrap();
            theirs.shutdown().await.unwrap();
            let circuit = Circuit("cafe".into());
            let target = target.parse().unwrap();
            let result = connect(&mut ours, &target, &circuit).await;
            let mut left = Vec::new();
            ours.read_to_end(&mut left).await.unwrap();
            drop(ours);
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).await.unwrap();
            (heard, result, left)
        })
    }

    const GREETED: [u8; 4] = [5, 2, 1, 0];

    #[test]
    fn the_proxy_is_asked_for_each_kind_of_address_and_not_a_byte_of_the_peer_s_is_taken() {
        let onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
        let name = |name: &str| {
            let mut bytes = vec![3, u8::try_from(name.len()).unwrap()];
            bytes.extend(name.bytes());
            bytes
        };
        for (target, address) in [
            ("192.0.2.7:9735".to_owned(), vec![1, 192, 0, 2, 7]),
            ("[::ffff:192.0.2.7]:9735".to_owned(), vec![1, 192, 0, 2, 7]),
            ("node.example:9735".to_owned(), name("node.example")),
            (format!("{onion}:9735"), name(onion)),
        ] {
            for bound in [&[1, 0, 0, 0, 0, 0, 0][..], &[3, 1, b'x', 0, 0], &{
                let mut six = [0; 19];
                six[0] = 4;
                six
            }] {
                let said = [&GREETED, &[5, 0, 0][..], bound, b"peer"].concat();
                let (heard, result, left) = talk(&target, &said);
                result.unwrap();
                let login = b"\x01\x04cafe\x04cafe";
                let expected = [&[5, 1, 2], &login[..], &[5, 1, 0], &address, &[38, 7]].concat();
                assert_eq!(heard, expected, "{target}");
                assert_eq!(left, b"peer");
            }
        }
    }

    #[test]
    fn a_proxy_that_does_not_keep_identities_apart_is_told_nothing() {
        for method in [0, 1, 0xff] {
            let (heard, result, _) = talk("node.example:1", &[5, method]);
            assert!(matches!(result, Err(ProxyError::NoIsolation)), "{result:?}");
            assert_eq!(heard, [5, 1, 2]);
        }
        let (heard, result, _) = talk("node.example:1", &[5, 2, 1, 1]);
        assert!(matches!(result, Err(ProxyError::Login)), "{result:?}");
        assert!(!heard.windows(4).any(|part| part == b"node"));
    }

    #[test]
    fn what_is_wrong_with_a_proxy_is_told_apart_from_what_is_wrong_with_a_peer() {
        for (said, culprit) in [
            (&b"HTTP/1.1 400"[..], Culprit::Operator),
            (b"", Culprit::Operator),
            (&[5, 2, 1, 0, 5, 2], Culprit::Operator),
            (&[5, 2, 1, 0, 5, 2, 0, 1], Culprit::Operator),
            (&[5, 2, 1, 0, 5, 4, 0, 1], Culprit::Peer),
            (&[5, 2, 1, 0, 5, 0xf0, 0, 1], Culprit::Peer),
            (&[5, 2, 1, 0, 4, 0, 0, 1], Culprit::Operator),
            (&[5, 2, 1, 0, 5, 0, 0, 9], Culprit::Operator),
        ] {
            let (_, result, _) = talk("node.example:1", said);
            assert_eq!(result.unwrap_err().culprit(), culprit, "{said:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_of_a_proxy_panics_or_passes_for_another(said in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (_, result, _) = talk("node.example:1", &said);
            let right = said.starts_with(&[5, 2, 1, 0, 5, 0]);
            prop_assert!(result.is_err() || right);
        }
    }
}
