//! The words of a signer session's life: its number, its end, and what a watcher sees.
//!
//! Plain data; it never decides anything and never waits.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The number of a signer session in this process: from 1, rising by one, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU64);

impl Epoch {
    /// The one that every process begins with.
    #[cfg(test)]
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    /// The one that no other follows.
    #[cfg(all(test, not(pilotlight_loom)))]
    pub(super) const LAST: Self = Self(NonZeroU64::MAX);

    /// The epoch after `last` (the first, if there was none). `None` when 2⁶⁴ − 1 have been used.
    pub(super) fn after(last: Option<Self>) -> Option<Self> {
        match last {
            None => Some(Self(NonZeroU64::MIN)),
            Some(last) => last.0.checked_add(1).map(Self),
        }
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a signer session ended. The words are the metric labels (`pilotlight_signer_lapses_total{reason}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LapseReason {
    /// Its holder dropped the session without a word.
    Dropped,
    /// An operator or the embedder asked for it.
    Requested,
    /// An operator or the embedder had planned it, and the node knew.
    Planned,
    /// The signer's stream ended or was reset.
    StreamClosed,
    /// The signer's stream was there, but the signer stopped answering.
    LivenessLost,
    /// Another signer proved itself and took its place.
    TakenOver,
    /// The signer broke its protocol, or failed in a way that its holder does not forgive.
    SignerError,
    /// The session was dropped by the unwinding of a panic.
    Panicked,
    /// The process is draining.
    Shutdown,
}

impl LapseReason {
    /// Every reason, in the order of declaration: a metric may be announced for each before it happens.
    pub const ALL: &'static [Self] = &[
        Self::Dropped,
        Self::Requested,
        Self::Planned,
        Self::StreamClosed,
        Self::LivenessLost,
        Self::TakenOver,
        Self::SignerError,
        Self::Panicked,
        Self::Shutdown,
    ];

    /// A lower-case word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Requested => "requested",
            Self::Planned => "planned",
            Self::StreamClosed => "stream_closed",
            Self::LivenessLost => "liveness_lost",
            Self::TakenOver => "taken_over",
            Self::SignerError => "signer_error",
            Self::Panicked => "panicked",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for LapseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened at the end of a session, as told to the one caller that ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "whoever ends a session reports it"]
pub struct Lapse {
    /// The session that ended.
    pub epoch: Epoch,
    /// Why.
    pub reason: LapseReason,
    /// From the call to the moment when every gate was closed and empty: the fence is up at `at + fence`.
    pub fence: Duration,
    /// When the lapse was called for.
    pub at: Instant,
}

/// What a watcher of a [`SignerContext`](super::SignerContext) sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignerState {
    /// No signer has attached since the process started.
    Never,
    /// A session is live.
    Live(Epoch),
    /// The last session has lapsed, and its fence is up: nothing under its lease moves any more.
    Away {
        /// The session that ended last.
        last: Epoch,
        /// Why it ended.
        reason: LapseReason,
    },
}

impl SignerState {
    /// The epoch of the live session.
    pub fn live(self) -> Option<Epoch> {
        match self {
            Self::Live(epoch) => Some(epoch),
            Self::Never | Self::Away { .. } => None,
        }
    }

    /// The newest epoch, live or not.
    pub fn newest(self) -> Option<Epoch> {
        match self {
            Self::Never => None,
            Self::Live(epoch) | Self::Away { last: epoch, .. } => Some(epoch),
        }
    }
}
