//! Who answers ECDH with the node's identity key, and until when.
//!
//! For: a watch-only node holds no key. Something else does, the *signer*, and it comes and goes. This module follows its
//! presence as a context that can be revoked: a [`SignerContext`] is the node's one place to ask "is a signer there?", a
//! [`SignerSession`] is the time between its attaching, with proof, and its lapse, and a [`Lease`] is what a link holds
//! that depends on that session. When the session ends, every lease of it is dead, everywhere at once (promises P1, P6).
//!
//! ```text
//!   challenge ─▶ ECDH ─▶ Proof ──attach──▶ SignerSession (epoch n) ──drop, lapse, panic──▶ Lapse
//!                                                │
//!                                  lease, ecdh: Lease (epoch n), dead for ever after the lapse
//! ```
//!
//! - `context`: [`SignerContext`], [`SignerSession`], [`Lease`]; `epoch`: [`Epoch`], [`Lapse`] and the other words of a session's life.
//! - `proof`: the [`Challenge`] that a signer answers first, and the [`Proof`] that it earns.
//! - `fence`: the gates that make a lapse take effect at once.
//! - `embedded`: [`EmbeddedSigner`], a key in this process.
//!
//! With the feature `gateway` two more stand beside them: `gateway/`, where a signer dials in over gRPC, and `agent/`, its
//! other end.
//!
//! It never dials, listens or spawns here, never decides what a link may send (that is the link's firewall), and never
//! calls a signer for a stranger's sake: who may ask is the supervisor's budget.
//!
//! # What a proof proves
//! The challenge is one ECDH with a fresh random point *e·G*. Only who can use the identity key can answer it, so a
//! [`Proof`] proves *access* to the key at that moment. It does not prove possession: whoever can ask the real signer can
//! relay the challenge to it. A transport that must rule this out binds the answer to its channel, as the agent does.

#[cfg(feature = "gateway")]
pub mod agent;
mod context;
mod embedded;
mod epoch;
mod error;
mod fence;
#[cfg(feature = "gateway")]
pub mod gateway;
mod proof;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use tokio::sync::watch;

use crate::node_id::{NodeId, Point};
use crate::secret::SharedSecret;

pub use context::{Lease, SignerContext, SignerSession};
pub use embedded::{EmbeddedSigner, KeyFileError};
pub use epoch::{Epoch, Lapse, LapseReason, SignerState};
pub use error::{AttachError, EcdhError, ProofError, SignerAway, SignerError};
pub use proof::{Challenge, Proof, bind};

/// What an ECDH is for. A signer that cannot do everything at once does what matters first, and bounds what strangers may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The challenge before a session.
    Proof,
    /// Act three to a peer that we have channels with.
    ChannelDial,
    /// Act three to a peer that only has gossip for us.
    GossipDial,
    /// Act one of whoever dialled us: anybody's 50 bytes, before their MAC can be checked.
    Inbound {
        /// Where they come from.
        source: IpAddr,
    },
}

/// One question to a [`Signer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EcdhCall {
    /// The other side's point.
    pub point: Point,
    /// What for.
    pub purpose: Purpose,
}

impl EcdhCall {
    /// A question.
    pub fn new(point: Point, purpose: Purpose) -> Self {
        Self { point, purpose }
    }
}

/// An ECDH that a [`Signer`] is working on.
pub type EcdhFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SharedSecret, SignerError>> + Send + 'a>>;

/// Whatever answers ECDH with the node's identity key: a key in this process, a process next door, a device far away.
///
/// An implementation may be slow or never answer: nothing but the handshake that asked waits for it, and a lapse ends that
/// wait at once. It must not block the thread that polls the future. Dropping the future is the only cancellation there
/// is; an answer that comes after that is the implementation's to throw away. Its `Drop` may run on the thread that
/// lapses its session, after the fence is closed: it should be quick there too, and a panic of it is contained.
///
/// ```
/// use pilotlight::node_id::NodeId;
/// use pilotlight::signer::{EcdhCall, EcdhFuture, EmbeddedSigner, Signer, SignerError};
///
/// /// Answers until it is told to stop.
/// struct Switchable {
///     inner: EmbeddedSigner,
///     on: std::sync::atomic::AtomicBool,
/// }
///
/// impl Signer for Switchable {
///     fn node_id(&self) -> NodeId {
///         self.inner.node_id()
///     }
///
///     fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_> {
///         if self.on.load(std::sync::atomic::Ordering::Relaxed) {
///             self.inner.ecdh(call)
///         } else {
///             Box::pin(async { Err(SignerError::Unavailable("switched off".into())) })
///         }
///     }
/// }
/// ```
pub trait Signer: Send + Sync + 'static {
    /// The public key of the identity that it answers for.
    fn node_id(&self) -> NodeId;

    /// `SHA256(compressed(k·call.point))`, with *k* the node's secret key: BOLT 8's ECDH (§ Handshake State).
    ///
    /// # Errors
    /// [`SignerError`], whatever the cause; only the handshake that asked fails.
    fn ecdh(&self, call: EcdhCall) -> EcdhFuture<'_>;

    /// Whether it would refuse a handshake of whoever dials from there now: their connection is then closed before anything is spent on
    /// it. Asked for every connection, so it must be quick; it takes nothing from any budget.
    fn declines(&self, _source: IpAddr) -> bool {
        false
    }

    /// Whether it is behind: what is asked of it already keeps it busy for so long that no new dial should begin. Asked once,
    /// when the signer attaches; the value is followed from then on. `None`: it never is.
    ///
    /// Dials that are under way go on, and so do strangers' handshakes, whose bounds are their own.
    fn behind(&self) -> Option<watch::Receiver<bool>> {
        None
    }
}
