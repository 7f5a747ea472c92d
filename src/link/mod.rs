//! One peer connection: its handshake, its scope, its keepalive, its firewall and its queue of outgoing messages.
//!
//! ```text
//!  TCP ── handshake ── admission ── init ── up ──────────────── ended
//!            │            │          │      │ lease rule, firewall,
//!            │            │          │      │ keepalive, outbox
//!            └────────────┴──────────┴──────┴─▶ close (FIN) or reset (RST)
//! ```
//!
//! [`machine`] decides what a message means and when to ping; `driver` owns the socket and acts. A link in the *signer's* scope
//! holds a [`Lease`](crate::signer::Lease): each of its writes happens inside the fence's gate, and the reaper may wipe its
//! secrets and reset its socket at any moment, whoever else holds them.

pub(crate) mod alarms;
pub mod allowance;
mod buffers;
pub(crate) mod caller;
pub mod catch_up;
pub(crate) mod delivery;
pub(crate) mod driver;
pub mod firewall;
pub(crate) mod handshake;
pub mod machine;
pub mod outbox;
pub(crate) mod places;
pub mod raw;
pub(crate) mod reach;
mod resolver;
pub(crate) mod shared;
pub(crate) mod socks;
mod task;
pub(crate) mod turnstile;
pub(crate) mod wake;

use crate::error::{Culprit, Retry};
use crate::node_id::NodeId;
use bytes::Bytes;
use std::fmt;

pub use handshake::HandshakeFailure;
pub use resolver::{Resolver, Resolving, SystemResolver};
pub use shared::LinkHandle;
pub use socks::ProxyError;

/// Numbers the links of one supervisor, from 1; never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(crate) u64);

impl LinkId {
    /// The id with a number: for who drives a machine without a supervisor.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number, for logs and tables.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the node says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// The node has no channel with this peer: its links outlive the signer.
    GossipOnly,
    /// The node has, or may have, a channel with this peer: its links die with the signer session.
    ChannelBearing,
}

impl Tag {
    /// Both tags.
    pub const ALL: [Self; 2] = [Self::GossipOnly, Self::ChannelBearing];

    /// The label in metrics, JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GossipOnly => "gossip-only",
            Self::ChannelBearing => "channel-bearing",
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Tag {
    type Err = UnknownTag;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "gossip-only" => Ok(Self::GossipOnly),
            "channel-bearing" => Ok(Self::ChannelBearing),
            _ => Err(UnknownTag {
                found: s.chars().take(32).collect(),
            }),
        }
    }
}

/// A word that is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tag {found:?}: write gossip-only or channel-bearing")]
pub struct UnknownTag {
    found: String,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// The label in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Which of our keys a link was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The node's own key, through the signer.
    Node,
    /// A throwaway key, for gossip only.
    Persona,
}

impl Identity {
    /// Both identities.
    pub const ALL: [Self; 2] = [Self::Node, Self::Persona];

    /// The label in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Persona => "persona",
        }
    }
}

/// Why a link ended. The variants are the label values of `links_closed_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed the connection.
    PeerClosed,
    /// The connection broke.
    Io,
    /// The signer session that the link was leased under lapsed.
    Lapse,
    /// A frame did not authenticate, or broke BOLT 8 in another way.
    Transport,
    /// The peer broke BOLT 1.
    Protocol,
    /// The peer sent a channel message while no signer was there.
    ChannelMessage,
    /// The peer sent `channel_reestablish` while no signer was there.
    Mistag,
    /// The peer sent an `error` for all channels.
    ErrorReceived,
    /// The peer asked for more pongs than anybody needs.
    PingFlood,
    /// The peer asked for more gossip than anybody needs.
    QueryFlood,
    /// The peer did not answer a ping in time.
    PongTimeout,
    /// Its session secrets had become as old as they may, or soon would.
    SessionAge,
    /// The peer sent no `init` in time.
    InitTimeout,
    /// A newer or better link with the same peer took its place.
    Duplicate,
    /// The peer was demoted to gossip-only after the link had carried channel messages.
    Demoted,
    /// The peer was removed.
    Removed,
    /// The node asked for it.
    Requested,
    /// No place was left, or the supervisor did not want the link.
    Refused,
    /// A newcomer has taken the place of a stranger's link that was idle the longest.
    Evicted,
    /// The peer is banned for a time, for what it did on earlier links.
    Banned,
    /// The supervisor is draining.
    Draining,
    /// A channel message could not be sent or taken because no signer is there.
    SignerAway,
    /// The signer comes and goes, and the peer's link must wait longer than the peer would.
    HeldDown,
    /// The link was a persona's, and its time is over: the node's own link is there, or the signer is back.
    Persona,
    /// The link was a persona's, and the peer bears a channel: it is closed at once, for a persona is never with one.
    Promoted,
    /// The peer book could not record a promotion, so no channel message may leave.
    Book,
    /// A bug of ours ended the link's task.
    Internal,
}

impl CloseReason {
    /// The label in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::Io => "io",
            Self::Lapse => "lapse",
            Self::Transport => "transport",
            Self::Protocol => "protocol",
            Self::ChannelMessage => "channel_message",
            Self::Mistag => "mistag",
            Self::ErrorReceived => "error_received",
            Self::PingFlood => "ping_flood",
            Self::QueryFlood => "query_flood",
            Self::PongTimeout => "pong_timeout",
            Self::SessionAge => "session_age",
            Self::InitTimeout => "init_timeout",
            Self::Duplicate => "duplicate",
            Self::Demoted => "demoted",
            Self::Removed => "removed",
            Self::Requested => "requested",
            Self::Refused => "refused",
            Self::Evicted => "evicted",
            Self::Banned => "banned",
            Self::Draining => "draining",
            Self::SignerAway => "signer_away",
            Self::HeldDown => "held_down",
            Self::Persona => "persona",
            Self::Promoted => "promoted",
            Self::Book => "book",
            Self::Internal => "internal",
        }
    }

    /// Whether the end was our own doing, or the signer's: then nothing is held against the peer.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Lapse
                | Self::SignerAway
                | Self::Duplicate
                | Self::Demoted
                | Self::Removed
                | Self::Requested
                | Self::Refused
                | Self::Evicted
                | Self::Banned
                | Self::Draining
                | Self::HeldDown
                | Self::Persona
                | Self::Promoted
                | Self::Book
                | Self::SessionAge
                | Self::Internal
        )
    }

    /// Whether the connection is reset at once (RST) rather than flushed and closed (FIN).
    pub fn is_abortive(self) -> bool {
        matches!(
            self,
            Self::Lapse | Self::Transport | Self::Io | Self::Internal
        )
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a message was not queued, or not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The link has ended.
    #[error("the link has ended ({reason}): wait for the peer's next link")]
    Ended {
        /// Why.
        reason: CloseReason,
    },
    /// The queue is full; only [`LinkHandle::try_send`] says so.
    #[error("the link's queue is full: wait, or use send(), which does")]
    Full,
    /// The message needs the signer, and none is there.
    #[error("message type {kind} needs the signer, which is away")]
    SignerAway {
        /// The message's type.
        kind: u16,
    },
    /// The firewall refuses this type on this link.
    #[error("message type {kind} may not leave on this link now: {rule} (design.md, Firewall)")]
    Refused {
        /// The message's type.
        kind: u16,
        /// The rule's name: a label.
        rule: &'static str,
    },
    /// The link itself sends this type, by its own clock.
    #[error("message type {kind} (init, ping or pong) is the link's own to send")]
    LinkOwned {
        /// The message's type.
        kind: u16,
    },
    /// No BOLT 1 message: shorter than its type, or longer than a frame holds.
    #[error("a message has 2 to 65535 bytes; this one has {length}")]
    Length {
        /// The bytes given.
        length: usize,
    },
}

impl SendError {
    /// Whose fault it is.
    pub fn culprit(&self) -> Culprit {
        match self {
            Self::Ended { .. } => Culprit::Peer,
            Self::Full | Self::Refused { .. } | Self::LinkOwned { .. } | Self::Length { .. } => {
                Culprit::Us
            }
            Self::SignerAway { .. } => Culprit::Signer,
        }
    }

    /// The rule that was applied.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Ended { .. } => "BOLT 8 § Overview",
            Self::Full => "limits::OUTBOX_BYTES",
            Self::SignerAway { .. } => "design.md P5",
            Self::Refused { .. } => "design.md § Firewall",
            Self::LinkOwned { .. } => "BOLT 1 § Setup & Control Messages",
            Self::Length { .. } => "BOLT 8 § Lightning Message Specification",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Ended { .. } | Self::Full => Retry::Later,
            Self::SignerAway { .. } => Retry::WhenSignerReturns,
            Self::Refused { .. } | Self::LinkOwned { .. } | Self::Length { .. } => Retry::Never,
        }
    }
}

/// A message from a peer, as the node receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub peer: NodeId,
    /// On which link.
    pub link: LinkId,
    /// The whole message, its 2-byte type first. A slice of the link's read buffer: copy it if it is to be kept for long.
    pub bytes: Bytes,
}

impl Message {
    /// The BOLT 1 type.
    pub fn kind(&self) -> u16 {
        match *self.bytes {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }
}
