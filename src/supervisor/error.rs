//! Why the supervisor did not do what it was asked.

use crate::book::BookError;
use crate::error::{Culprit, Retry};
use crate::limits;
use crate::node_id::NodeId;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why [`Supervisor::connect`](super::Supervisor::connect) gave no link. The peer stays wanted all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No signer is there: the dial is held until it returns.
    #[error("no signer is there: the peer is dialled when it returns")]
    SignerAway,
    /// The signer is there, but has come and gone so often that channel peers wait.
    #[error("the signer comes and goes: the peer is dialled in {:.0} s if it stays", wait.as_secs_f64().ceil())]
    HeldDown {
        /// How long from now.
        wait: Duration,
    },
    /// The attempt failed; the next follows with backoff.
    #[error("{detail} (it is tried again)")]
    Failed {
        /// A label.
        failure: &'static str,
        /// In words.
        detail: String,
    },
    /// No address is known.
    #[error("no address is known for this peer: give one")]
    NoAddress,
    /// Addresses are known, and none of them can be dialled.
    #[error(
        "no address of this peer can be dialled: an onion service needs a proxy, and one from a list must be globally routable"
    )]
    NotDialable,
    /// No further peer is taken in.
    #[error(
        "{} peers are known, and that is the most: remove some",
        limits::PEERS_MAX
    )]
    RosterFull,
    /// The peer is the node itself.
    #[error("this key is the node's own: it is no peer of itself")]
    OwnKey,
    /// The peer was removed meanwhile.
    #[error("the peer was removed")]
    Removed,
    /// The supervisor is draining.
    #[error("the supervisor is draining")]
    Draining,
    /// The supervisor has stopped.
    #[error("the supervisor has stopped")]
    Stopped,
}

impl ConnectError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::SignerAway | Self::HeldDown { .. } => Culprit::Signer,
            Self::Failed { .. } => Culprit::Peer,
            Self::NoAddress
            | Self::NotDialable
            | Self::OwnKey
            | Self::RosterFull
            | Self::Removed => Culprit::Operator,
            Self::Draining | Self::Stopped => Culprit::Us,
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::SignerAway => "design.md P5",
            Self::HeldDown { .. } => "limits::HOLD_DOWN_MAX",
            Self::Failed { .. } => "BOLT 8 § Handshake Exchange",
            Self::NoAddress | Self::OwnKey | Self::Removed => "design.md § Architecture",
            Self::NotDialable => "design.md § The daemon's face",
            Self::RosterFull => "limits::PEERS_MAX",
            Self::Draining | Self::Stopped => "design.md § Modes",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::SignerAway => Retry::WhenSignerReturns,
            Self::Failed { .. } | Self::HeldDown { .. } => Retry::Later,
            Self::NoAddress
            | Self::NotDialable
            | Self::OwnKey
            | Self::RosterFull
            | Self::Removed
            | Self::Draining
            | Self::Stopped => Retry::Never,
        }
    }
}

/// Why the supervisor did not take in a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RosterError {
    /// The peer is not known, and no further one is taken in.
    #[error(
        "the peer is not known, and {} are, which is the most: remove some",
        limits::PEERS_MAX
    )]
    RosterFull,
    /// The peer is the node itself.
    #[error("this key is the node's own: it is no peer of itself")]
    OwnKey,
    /// The supervisor has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl RosterError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::RosterFull | Self::OwnKey => Culprit::Operator,
            Self::Stopped(stopped) => stopped.culprit(),
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::RosterFull => "limits::PEERS_MAX",
            Self::OwnKey => "design.md § Architecture",
            Self::Stopped(stopped) => stopped.rule(),
        }
    }

    /// Whether the same call may succeed later: not before peers are removed, if ever.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// The supervisor has stopped: drained, or its runtime is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor has stopped")]
pub struct Stopped;

/// Why the supervisor did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The peer book could not be read.
    #[error(transparent)]
    Book(#[from] BookError),
    /// Everything shall go through a proxy, and none is set.
    #[error("all dials shall go through a proxy, and none is set: set one")]
    NoProxy,
    /// The key that is to be held as the node's is another's.
    #[error(
        "the cached identity is the key of {found}, not of this node, {expected}: give the node's own key, or none"
    )]
    OtherIdentity {
        /// The node.
        expected: NodeId,
        /// Whose key it is.
        found: NodeId,
    },
    /// The system gave no thread or no randomness.
    #[error("the system refuses what the supervisor needs: {0}")]
    System(#[from] io::Error),
}

/// Why the supervisor does not listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for peers on {address}: {source}")]
pub struct ListenError {
    /// Where it should have.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl Stopped {
    /// Whose doing it is: whoever drained the supervisor or dropped it.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        "design.md § Modes"
    }

    /// Whether the same call may succeed later: start another supervisor.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl StartError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Book(error) => error.rule(),
            Self::NoProxy => "a way out for every dial",
            Self::OtherIdentity { .. } => "design.md § The truth about cached secrets",
            Self::System(_) => "design.md § Architecture",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Book(error) => error.retry(),
            Self::NoProxy | Self::OtherIdentity { .. } => Retry::Never,
            Self::System(_) => Retry::Later,
        }
    }
}

impl ListenError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        Culprit::Operator
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        "an address of this machine that nobody else listens on"
    }

    /// Whether the same call may succeed later: once the address is free.
    pub fn retry(&self) -> Retry {
        Retry::Later
    }
}

impl From<RosterError> for ConnectError {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::RosterFull => Self::RosterFull,
            RosterError::OwnKey => Self::OwnKey,
            RosterError::Stopped(Stopped) => Self::Stopped,
        }
    }
}
