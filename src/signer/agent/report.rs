//! What an agent is doing and what it has done: a state to await, and numbers to print.
//!
//! It never holds a point, an answer or a key.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Where an agent is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentState {
    /// It reads its files, connects and shakes hands.
    Dialing,
    /// Its registration is sent and not answered.
    Registering,
    /// The server has accepted it.
    Attached,
    /// The last attempt, or the stream, has ended.
    Waiting {
        /// What ended it: an [`AgentError::label`](super::AgentError::label).
        failure: &'static str,
        /// The same in words.
        detail: String,
        /// How long until the next dial.
        retry_in: Duration,
    },
    /// It was told to stop.
    Stopped,
}

/// Why a request got a `signer_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It is for another key than the node's.
    OtherKey,
    /// It names the key twice, by locator and by descriptor.
    TwoKeys,
    /// Its ephemeral key is no point of the curve.
    NotAPoint,
    /// It asks for a signature or a step of one.
    Signing,
    /// It is of no known kind.
    Unknown,
    /// More are waiting than the agent keeps.
    Busy,
    /// The key's holder failed.
    SignerFailed,
}

impl Refusal {
    /// What the server is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherKey => "this signer answers for the node's own key only",
            Self::TwoKeys => "use either key_loc or key_desc, not both",
            Self::NotAPoint => "ephemeral_pubkey is not a compressed point of secp256k1",
            Self::Signing => "this signer answers ECDH only",
            Self::Unknown => "this signer does not know this request",
            Self::Busy => "this signer has too many requests waiting",
            Self::SignerFailed => "the signer could not compute this",
        }
    }
}

/// What an agent has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AgentReport {
    /// Dials that were begun.
    pub dials: u64,
    /// Streams that the server accepted.
    pub attached: u64,
    /// ECDH that were answered.
    pub ecdh: u64,
    /// Proofs, bound to the certificate, that were answered.
    pub proofs: u64,
    /// Pings that were answered.
    pub pings: u64,
    /// Requests for another key, or for the key by two names.
    pub refused_key: u64,
    /// Requests for signatures.
    pub refused_signing: u64,
    /// Requests that made no sense.
    pub refused_malformed: u64,
    /// Requests that came while too many were waiting.
    pub refused_busy: u64,
    /// Requests that the key's holder failed on.
    pub failed: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Dial,
    Attached,
    Ecdh,
    Proof,
    Ping,
    Refused(Refusal),
}

/// The numbers behind an [`AgentReport`], written by one task and read by anyone.
#[derive(Default)]
pub(crate) struct Ledger {
    dials: AtomicU64,
    attached: AtomicU64,
    ecdh: AtomicU64,
    proofs: AtomicU64,
    pings: AtomicU64,
    refused_key: AtomicU64,
    refused_signing: AtomicU64,
    refused_malformed: AtomicU64,
    refused_busy: AtomicU64,
    failed: AtomicU64,
}

impl Ledger {
    pub(crate) fn add(&self, count: Count) {
        let counter = match count {
            Count::Dial => &self.dials,
            Count::Attached => &self.attached,
            Count::Ecdh => &self.ecdh,
            Count::Proof => &self.proofs,
            Count::Ping => &self.pings,
            Count::Refused(Refusal::OtherKey | Refusal::TwoKeys) => &self.refused_key,
            Count::Refused(Refusal::Signing) => &self.refused_signing,
            Count::Refused(Refusal::NotAPoint | Refusal::Unknown) => &self.refused_malformed,
            Count::Refused(Refusal::Busy) => &self.refused_busy,
            Count::Refused(Refusal::SignerFailed) => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn report(&self) -> AgentReport {
        AgentReport {
            dials: self.dials.load(Relaxed),
            attached: self.attached.load(Relaxed),
            ecdh: self.ecdh.load(Relaxed),
            proofs: self.proofs.load(Relaxed),
            pings: self.pings.load(Relaxed),
            refused_key: self.refused_key.load(Relaxed),
            refused_signing: self.refused_signing.load(Relaxed),
            refused_malformed: self.refused_malformed.load(Relaxed),
            refused_busy: self.refused_busy.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}
