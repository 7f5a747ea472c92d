//! Drives the three acts over a socket: deadlines, the signer's ECDH, and the fence around what is written under a lease.
//!
//! The acts themselves are [`brontide`](crate::brontide)'s, which does no I/O. A handshake that waits for its ECDH holds nothing
//! that another link needs.

use super::Direction;
use super::shared::reset_socket;
use super::socks::ProxyError;
use crate::address::{DnsName, PeerAddress};
use crate::brontide::{
    ACT_ONE_LEN, Authenticated, AwaitActOne, HandshakeError, InitiatorStart, ResponderEcdh,
};
use crate::clock::{Clock, Moment};
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::node_id::{LocalKey, NodeId};
use crate::secret::SharedSecret;
use crate::signer::{EcdhCall, EcdhError, Lease, Purpose, SignerContext, SignerError};
use crate::telemetry::{Event, Telemetry};
use rustix::io::Errno;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Where the ECDH of our static key comes from.
#[derive(Clone)]
pub(crate) enum StaticKey {
    /// From the signer, under a lease.
    Signer(SignerContext),
    /// From a key in this process that is not the node's: a persona, or a tool's own.
    Local(Arc<LocalKey>),
}

impl StaticKey {
    pub(crate) fn node_id(&self) -> NodeId {
        match self {
            Self::Signer(context) => context.node_id(),
            Self::Local(key) => key.node_id(),
        }
    }

    async fn ecdh(
        &self,
        call: &EcdhCall,
    ) -> Result<(SharedSecret, Option<Lease>), HandshakeFailure> {
        match self {
            Self::Signer(context) => {
                let (secret, lease) = context.ecdh(*call).await?;
                Ok((secret, Some(lease)))
            }
            Self::Local(key) => Ok((key.ecdh(&call.point), None)),
        }
    }
}

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// No TCP connection.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The peer's name could not be looked up.
    #[error("the name {name} is not resolved: {why}")]
    Resolve {
        /// The name.
        name: DnsName,
        /// What the resolver says.
        why: String,
    },
    /// The address is learned, or what a learned name stands for, and is no host's on the Internet; or it is no single machine's.
    #[error("{0} is not globally routable, and not given by hand: it is not dialled")]
    NotRoutable(SocketAddr),
    /// Strangers from there are banned: a persona, who is a stranger there too, does not dial it.
    #[error("{0} is banned: no persona dials it until the ban is over")]
    Banned(SocketAddr),
    /// It is where this node is.
    #[error("{0} is this node's own address")]
    OwnAddress(PeerAddress),
    /// It is reached through a proxy only, and there is none.
    #[error("it is reached through a proxy only, and none is set")]
    NoProxy,
    /// The proxy gave no connection.
    #[error(transparent)]
    Proxy(ProxyError),
    /// Nothing answered the connection attempt in time.
    #[error("no connection within {} s", limits::CONNECT_DEADLINE.as_secs())]
    ConnectTimeout,
    /// The connection broke during an act.
    #[error("the connection broke in act {act}: {source}")]
    Io {
        /// 1 to 3.
        act: u8,
        /// What the system says.
        source: io::Error,
    },
    /// The peer closed the connection before an act was whole.
    #[error("the peer closed the connection in act {act}, after {received} of its bytes")]
    Closed {
        /// 1 to 3.
        act: u8,
        /// Bytes of the act that had arrived.
        received: usize,
    },
    /// The act was not whole in time.
    #[error("act {act} took longer than {} s", limits::ACT_DEADLINE.as_secs())]
    Timeout {
        /// 1 to 3.
        act: u8,
    },
    /// The peer was the one that had been silent the longest when a newcomer found no place.
    #[error("another connection has taken its place while it was silent")]
    Crowded,
    /// The signer did not answer in the time that the act has. The answer, should it come, is dropped.
    #[error("the signer did not answer within {} s in act {act}", limits::ACT_DEADLINE.as_secs())]
    EcdhLate {
        /// 2 or 3.
        act: u8,
    },
    /// An act broke BOLT 8.
    #[error(transparent)]
    Protocol(#[from] HandshakeError),
    /// The signer did not give the ECDH.
    #[error(transparent)]
    Ecdh(#[from] EcdhError),
    /// The system gave no randomness for an ephemeral key.
    #[error("the system gives no randomness: no ephemeral key can be made")]
    Entropy,
    /// Code that ran in the handshake's task, perhaps the signer's, panicked.
    #[error("a panic ended the handshake: see the log")]
    Panicked,
    /// The signer session that the handshake depended on lapsed.
    #[error("the signer session lapsed during the handshake")]
    Lapsed,
    /// The supervisor did not want the link.
    #[error("not admitted: {0}")]
    NotAdmitted(super::CloseReason),
    /// The handshake was done, and then the link ended before both `init`s had passed.
    #[error("the link ended before init: {0}")]
    BeforeInit(super::CloseReason),
}

impl HandshakeFailure {
    /// The label in `handshakes_total{result}`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Resolve { .. } => "resolve",
            Self::NotRoutable(_) => "not_routable",
            Self::Banned(_) => "banned",
            Self::OwnAddress(_) => "own_address",
            Self::NoProxy => "no_proxy",
            Self::Proxy(error) if error.culprit() == Culprit::Peer => "proxy_refused",
            Self::Proxy(_) => "proxy",
            Self::Io { .. } => "io",
            Self::Closed { .. } => "closed",
            Self::Timeout { .. } => "timeout",
            Self::Crowded => "crowded",
            Self::Protocol(_) => "protocol",
            Self::Ecdh(EcdhError::SignerAway(_))
            | Self::Lapsed
            | Self::BeforeInit(super::CloseReason::Lapse) => "signer_away",
            Self::EcdhLate { .. } => "signer_late",
            Self::Ecdh(EcdhError::Signer(SignerError::Overloaded(_))) => "throttled",
            Self::Ecdh(_) => "signer",
            Self::NotAdmitted(_) => "not_admitted",
            Self::BeforeInit(reason) => reason.as_str(),
            Self::Entropy => "entropy",
            Self::Panicked => "panicked",
        }
    }

    /// Whether the peer had accepted the TCP connection.
    pub fn was_connected(&self) -> bool {
        !matches!(
            self,
            Self::Connect(_)
                | Self::ConnectTimeout
                | Self::Resolve { .. }
                | Self::NotRoutable(_)
                | Self::Banned(_)
                | Self::OwnAddress(_)
                | Self::NoProxy
                | Self::Proxy(_)
        )
    }

    /// Whether nothing leads from this machine to addresses of that kind now; another of the peer's may be reached.
    pub fn has_no_way(&self) -> bool {
        match self {
            Self::NoProxy => true,
            Self::Proxy(error) => error.culprit() != Culprit::Peer,
            // Where IPv6 is switched off, as in most containers.
            Self::Connect(error) => is_one_of(error, &[Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT]),
            _ => false,
        }
    }

    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Protocol(error) => error.culprit(),
            Self::Proxy(error) => error.culprit(),
            Self::NoProxy => Culprit::Operator,
            Self::Ecdh(_) | Self::EcdhLate { .. } | Self::Lapsed => Culprit::Signer,
            Self::Connect(error) if is_ours(error) => Culprit::Us,
            Self::BeforeInit(reason) if reason.is_ours() => Culprit::Us,
            Self::NotAdmitted(_) | Self::Entropy | Self::Panicked => Culprit::Us,
            _ => Culprit::Peer,
        }
    }

    /// The rule or bound that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => "limits::CONNECT_DEADLINE",
            Self::Resolve { .. } => "limits::RESOLVE_DEADLINE",
            Self::NotRoutable(_) | Self::OwnAddress(_) | Self::NoProxy => {
                "design.md § The daemon's face"
            }
            Self::Banned(_) => "design.md § The truth about cached secrets",
            Self::Proxy(error) => error.rule(),
            Self::Io { .. } | Self::Closed { .. } => "BOLT 8 § Handshake Exchange",
            Self::Timeout { .. } | Self::EcdhLate { .. } => "limits::ACT_DEADLINE",
            Self::Crowded => "limits::INBOUND_HANDSHAKES",
            Self::Protocol(error) => error.rule(),
            Self::Ecdh(_) | Self::Lapsed => "design.md P6",
            Self::NotAdmitted(_) => "design.md § The link's driver",
            Self::BeforeInit(_) => "BOLT 1 § The init Message",
            Self::Entropy => "BOLT 8 § Handshake State",
            Self::Panicked => "no panic is reachable from outside data",
        }
    }

    /// Whether another attempt may succeed.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Ecdh(EcdhError::SignerAway(_)) | Self::Lapsed => Retry::WhenSignerReturns,
            _ => Retry::Later,
        }
    }
}

/// Whether a connection failed for want of something of ours: descriptors, memory, local ports, a local address.
fn is_ours(error: &io::Error) -> bool {
    let wants = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::AFNOSUPPORT,
    ];
    is_one_of(error, &wants)
}

fn is_one_of(error: &io::Error, codes: &[Errno]) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    code.is_some_and(|code| codes.contains(&code))
}

/// A fresh key from the system's randomness.
pub(super) fn ephemeral() -> Result<LocalKey, HandshakeFailure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| HandshakeFailure::Entropy)?;
    LocalKey::from_bytes(&mut seed).map_err(|_| HandshakeFailure::Entropy)
}

/// What has come of an act. What was read stays when a wait for the rest is given up.
pub(crate) struct Partial<const N: usize> {
    bytes: [u8; N],
    received: usize,
}

impl<const N: usize> Partial<N> {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; N],
            received: 0,
        }
    }

    /// The whole of it, once it has been read.
    pub(crate) fn bytes(&self) -> &[u8; N] {
        &self.bytes
    }
}

/// A finished handshake, and the lease under which our key answered; `None` for a key of this process.
pub(crate) struct Done {
    pub(crate) authenticated: Authenticated,
    pub(crate) lease: Option<Lease>,
}

/// A socket with a clock to limit each act by.
pub(crate) struct Acts<'a> {
    pub(crate) socket: &'a TcpStream,
    pub(crate) clock: &'a dyn Clock,
    /// Who is told of each ECDH.
    pub(crate) observer: Option<&'a Telemetry>,
}

impl Acts<'_> {
    /// BOLT 8 as initiator. `lease`: the one that the link is already in the scope of, if it is; else the ECDH's is used from
    /// act three on.
    pub(crate) async fn initiate(
        &self,
        key: &StaticKey,
        remote: NodeId,
        purpose: Purpose,
        lease: Option<Lease>,
    ) -> Result<Done, HandshakeFailure> {
        // In blocks: what an act needs has room in the future until its block ends, and hundreds of them are under way at a time.
        let (three, authenticated, lease) = {
            let answered = async {
                let (state, one) = InitiatorStart::new(key.node_id(), remote, ephemeral()?)?;
                self.within(1, pin!(self.write(1, &one, lease.as_ref())))
                    .await?;
                let mut two = Partial::<50>::new();
                self.within(2, pin!(self.read(2, &mut two))).await?;
                Ok::<_, HandshakeFailure>(state.act_two(two.bytes())?)
            };
            let state = answered.await?;
            let by = self.clock.now().after(limits::ACT_DEADLINE);
            let call = EcdhCall::new(state.request().point, purpose);
            let (secret, ecdh_lease) = self.ecdh(3, key, &call, by).await?;
            let (three, authenticated) = state.resume(secret)?;
            (three, authenticated, lease.or(ecdh_lease))
        };
        self.within(3, pin!(self.write(3, &three, lease.as_ref())))
            .await?;
        Ok(Done {
            authenticated,
            lease,
        })
    }

    /// BOLT 8 as responder.
    pub(crate) async fn respond(&self, key: &StaticKey) -> Result<Done, HandshakeFailure> {
        let source = self
            .socket
            .peer_addr()
            .map_err(|source| HandshakeFailure::Io { act: 1, source })?
            .ip();
        let mut one = Partial::new();
        self.act_one(&mut one).await?;
        let state = AwaitActOne::new(key.node_id(), ephemeral()?).act_one(one.bytes())?;
        let by = self.clock.now().after(limits::ACT_DEADLINE);
        let call = EcdhCall::new(state.request().point, Purpose::Inbound { source });
        let (secret, lease) = self.ecdh(2, key, &call, by).await?;
        self.conclude(state, secret, lease).await
    }

    /// The responder's first step: act one, as far as it has not been read yet. Cancel safe: what was read stays in `one`.
    pub(crate) async fn act_one(
        &self,
        one: &mut Partial<ACT_ONE_LEN>,
    ) -> Result<(), HandshakeFailure> {
        self.within(1, pin!(self.read(1, one))).await
    }

    /// The responder's last step: act two out, act three in.
    pub(crate) async fn conclude(
        &self,
        state: ResponderEcdh,
        secret: SharedSecret,
        lease: Option<Lease>,
    ) -> Result<Done, HandshakeFailure> {
        let (state, two) = state.resume(secret)?;
        self.within(2, pin!(self.write(2, &two, lease.as_ref())))
            .await?;
        let mut three = Partial::<66>::new();
        self.within(3, pin!(self.read(3, &mut three))).await?;
        let authenticated = state.act_three(three.bytes())?;
        Ok(Done {
            authenticated,
            lease,
        })
    }

    /// Asks the signer, until the time of the act is over: an answer later than that serves no peer.
    pub(crate) async fn ecdh(
        &self,
        act: u8,
        key: &StaticKey,
        call: &EcdhCall,
        by: Moment,
    ) -> Result<(SharedSecret, Option<Lease>), HandshakeFailure> {
        let source = match call.purpose {
            Purpose::Inbound { .. } => Direction::Inbound,
            _ => Direction::Outbound,
        };
        let started = self.clock.now();
        let deadline = self.clock.sleep_until(by);
        let result = tokio::select! {
            biased;
            result = key.ecdh(call) => result,
            () = deadline => Err(HandshakeFailure::EcdhLate { act }),
        };
        let took = self.clock.now().since(started);
        if let (StaticKey::Signer(context), Ok((_, Some(lease)))) = (key, &result) {
            context.answered_in(lease.epoch(), took);
        }
        if let Some(observer) = self.observer {
            let label = match &result {
                Ok(_) => "ok",
                Err(HandshakeFailure::EcdhLate { .. }) => "late",
                Err(HandshakeFailure::Ecdh(EcdhError::SignerAway(_))) => "away",
                Err(HandshakeFailure::Ecdh(EcdhError::Signer(SignerError::Overloaded(_)))) => {
                    "throttled"
                }
                Err(_) => "failed",
            };
            observer.emit(Event::Ecdh {
                source,
                result: label,
                took,
            });
        }
        result
    }

    /// Pinned by whoever asks: what is handed on by value has room in each future that it is handed to.
    async fn within<T>(
        &self,
        act: u8,
        work: Pin<&mut impl Future<Output = Result<T, HandshakeFailure>>>,
    ) -> Result<T, HandshakeFailure> {
        let deadline = self
            .clock
            .sleep_until(self.clock.now().after(limits::ACT_DEADLINE));
        tokio::select! {
            biased;
            result = work => result,
            () = deadline => Err(HandshakeFailure::Timeout { act }),
        }
    }

    async fn read<const N: usize>(
        &self,
        act: u8,
        into: &mut Partial<N>,
    ) -> Result<(), HandshakeFailure> {
        let Partial { bytes, received } = into;
        while let Some(rest) = bytes.get_mut(*received..).filter(|rest| !rest.is_empty()) {
            self.socket
                .readable()
                .await
                .map_err(|source| HandshakeFailure::Io { act, source })?;
            match self.socket.try_read(rest) {
                Ok(0) => {
                    let received = *received;
                    return Err(HandshakeFailure::Closed { act, received });
                }
                Ok(count) => *received += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(HandshakeFailure::Io { act, source }),
            }
        }
        Ok(())
    }

    /// Writes an act; each piece of it inside the gate when there is a lease.
    async fn write(
        &self,
        act: u8,
        bytes: &[u8],
        lease: Option<&Lease>,
    ) -> Result<(), HandshakeFailure> {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.socket
                .writable()
                .await
                .map_err(|source| HandshakeFailure::Io { act, source })?;
            let result = match lease {
                None => self.socket.try_write(rest),
                Some(lease) => {
                    let Some(_gate) = lease.enter() else {
                        reset_socket(self.socket);
                        return Err(HandshakeFailure::Lapsed);
                    };
                    self.socket.try_write(rest)
                }
            };
            match result {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(HandshakeFailure::Io { act, source }),
            }
        }
        Ok(())
    }
}
