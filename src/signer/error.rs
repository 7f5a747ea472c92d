//! What can go wrong between this node and its signer; each error says whose fault it was and whether to try again.
//!
//! It never carries a secret, and never a point or an answer: a log line cannot give away what was asked.

use std::borrow::Cow;

use thiserror::Error;

use super::epoch::Epoch;
use crate::error::{Culprit, Retry};
use crate::node_id::{NodeId, NodeIdError};

/// No signer session is live: none has attached yet, or the last one has lapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signer is away")]
pub struct SignerAway;

impl SignerAway {
    /// Whose misfortune this is: the signer's.
    pub fn culprit(&self) -> Culprit {
        Culprit::Signer
    }
    /// The promise that makes this an immediate answer rather than a wait.
    pub fn rule(&self) -> &'static str {
        "P5: what needs the signer fails at once while it is away"
    }
    /// The same call may succeed once a signer is attached.
    pub fn retry(&self) -> Retry {
        Retry::WhenSignerReturns
    }
}

/// What a [`Signer`](super::Signer) reports about one ECDH. The text is for logs; it must not hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignerError {
    /// It cannot be reached just now.
    #[error("the signer cannot be reached: {0}")]
    Unavailable(Cow<'static, str>),
    /// It was reached and says no.
    #[error("the signer refuses: {0}")]
    Refused(Cow<'static, str>),
    /// It answered, but not with a 32-byte secret, or not to what was asked.
    #[error("the signer's answer makes no sense: {0}")]
    Malformed(Cow<'static, str>),
    /// It has more questions than its bound allows.
    #[error("the signer has too many requests in flight: {0}")]
    Overloaded(Cow<'static, str>),
}

impl SignerError {
    /// Whose fault it was: the signer's.
    pub fn culprit(&self) -> Culprit {
        Culprit::Signer
    }
    /// The rule that was broken or could not be followed.
    pub fn rule(&self) -> &'static str {
        "BOLT 8 § Handshake State: ECDH(k, rk)"
    }
    /// Whether to ask again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) | Self::Overloaded(_) => Retry::Later,
            Self::Refused(_) | Self::Malformed(_) => Retry::Never,
        }
    }
}

/// Why [`SignerContext::ecdh`](super::SignerContext::ecdh) gave no secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EcdhError {
    /// No session is live, or the one that was asked has lapsed in the meantime. Its answer, if any, is gone.
    #[error(transparent)]
    SignerAway(#[from] SignerAway),
    /// The signer is there, and failed.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

impl EcdhError {
    /// Whose fault it was: the signer's.
    pub fn culprit(&self) -> Culprit {
        Culprit::Signer
    }
    /// The promise or the section of the specification.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::SignerAway(away) => away.rule(),
            Self::Signer(error) => error.rule(),
        }
    }
    /// Whether to ask again, and when.
    pub fn retry(&self) -> Retry {
        match self {
            Self::SignerAway(away) => away.retry(),
            Self::Signer(error) => error.retry(),
        }
    }
}

/// Why a candidate has not proved that it can use the identity key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The 32 bytes are no secret key of the curve (zero, or not below the group's order): a chance of 2⁻¹²⁸ with real
    /// randomness.
    #[error("the challenge's 32 random bytes are not a valid secret key")]
    Entropy,
    /// This context's node id is no point. Not reachable: a `NodeId` is checked when it is made.
    #[error("this node's id cannot be used: {0}")]
    NodeId(#[from] NodeIdError),
    /// The candidate itself says that it is another node's signer.
    #[error("the signer is that of {offered}, this node is {expected}")]
    OtherNode {
        /// This context's node.
        expected: NodeId,
        /// What the candidate's `node_id()` says.
        offered: NodeId,
    },
    /// The candidate answered, but the answer is not that of this node's key.
    #[error("the signer's answer to the challenge is not that of this node's key")]
    WrongAnswer,
    /// The candidate gave no answer.
    #[error("the signer did not answer the challenge: {0}")]
    Signer(#[from] SignerError),
}

impl ProofError {
    /// Whose fault it was: ours for the entropy, else the signer's.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Entropy | Self::NodeId(_) => Culprit::Us,
            Self::OtherNode { .. } | Self::WrongAnswer | Self::Signer(_) => Culprit::Signer,
        }
    }
    /// The rule that was not met.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Entropy => "secp256k1: a secret key is in 1..n",
            Self::NodeId(error) => error.rule(),
            Self::OtherNode { .. } | Self::WrongAnswer | Self::Signer(_) => {
                "proof first: SHA256(compressed(e·NodeId)) for a fresh e"
            }
        }
    }
    /// Whether the same candidate may be asked again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Entropy => Retry::Later,
            Self::NodeId(_) | Self::OtherNode { .. } | Self::WrongAnswer => Retry::Never,
            Self::Signer(error) => error.retry(),
        }
    }
}

/// Why a signer with a proof could not attach. The proof is spent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// A session is live; lapse it first (a take-over), or wait for its end.
    #[error("a signer is attached already (epoch {live})")]
    Occupied {
        /// The session that is live.
        live: Epoch,
    },
    /// The proof was minted by another context's challenge, be it one for the same node.
    #[error("the proof answers the challenge of another context")]
    ProofOfAnother,
    /// The challenge was set before a session that has begun since: a proof is good for the next epoch only.
    #[error("the proof is from before epoch {last}: the signer must be challenged anew")]
    ProofOutdated {
        /// The newest epoch.
        last: Epoch,
    },
    /// The signer is that of another node than the one the proof is for.
    #[error("the signer is that of {offered}, this node is {expected}")]
    OtherNode {
        /// This context's node.
        expected: NodeId,
        /// What the signer's `node_id()` says.
        offered: NodeId,
    },
    /// The context has been shut down: this process is draining.
    #[error("the node is shutting down and takes no signer")]
    Draining,
    /// Every epoch has been used. Not reachable: there are 2⁶⁴ − 1.
    #[error("no epoch is left in this process")]
    EpochsExhausted,
}

impl AttachError {
    /// Whose fault it was.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::ProofOfAnother | Self::Draining | Self::EpochsExhausted => Culprit::Us,
            Self::Occupied { .. } | Self::ProofOutdated { .. } | Self::OtherNode { .. } => {
                Culprit::Signer
            }
        }
    }
    /// The rule that refused it.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Occupied { .. } => "one signer session at a time",
            Self::ProofOfAnother | Self::OtherNode { .. } => {
                "a proof is for one context and one node"
            }
            Self::ProofOutdated { .. } => "P6: a proof serves the next epoch only",
            Self::Draining => "a draining node takes no signer",
            Self::EpochsExhausted => "an epoch is never reused",
        }
    }
    /// Whether to try again, with a new proof.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Occupied { .. } | Self::ProofOutdated { .. } => Retry::Later,
            Self::ProofOfAnother
            | Self::OtherNode { .. }
            | Self::Draining
            | Self::EpochsExhausted => Retry::Never,
        }
    }
}
