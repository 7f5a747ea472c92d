//! The one list of events. Metrics, logs, the event stream and the tests are all fed from it.

use crate::address::PeerAddress;
use crate::link::{CloseReason, Direction, Identity, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::{Epoch, LapseReason};
use crate::supervisor::{Banned, DeadlinesNear, HtlcDeadline, Mode, Offence};
use std::net::SocketAddr;
use std::time::Duration;

/// An event and the wall clock when it was recorded (time since the Unix epoch).
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Time since the Unix epoch.
    pub at: Duration,
    /// What happened.
    pub event: Event,
    /// Its number among the events that are kept for a while, from 1; `None` if it is of a kind that is not.
    pub number: Option<u64>,
}

/// What a lapse did, once every link in the signer's scope is wiped and reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LapseReport {
    /// The session that ended.
    pub epoch: Epoch,
    /// Why it ended.
    pub reason: LapseReason,
    /// How long raising the fence took.
    pub fence: Duration,
    /// From the fence to the last reset.
    pub teardown: Duration,
    /// Links that were torn down.
    pub dropped: usize,
    /// Those of them whose peer is channel-bearing; the others were leased because a channel message had passed.
    pub channel_bearing: usize,
    /// Links that live on.
    pub retained: usize,
}

/// Something that happened. Thousands of events are kept, each in the room of the largest: an address and words lie in boxes where they would
/// make it larger.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The supervisor listens for peers.
    Listening {
        /// Where.
        address: SocketAddr,
    },
    /// The mode changed.
    ModeChanged {
        /// Before.
        from: Mode,
        /// After.
        to: Mode,
    },
    /// A signer session began.
    SignerAttached {
        /// Its number.
        epoch: Epoch,
        /// How long no signer had been there; `None` for the first since start.
        away: Option<Duration>,
    },
    /// A signer session ended and all that depended on it is gone.
    SignerLapsed(LapseReport),
    /// The signer is back, and has lapsed so often of late that channel peers wait before they are dialled or let in.
    HeldDown {
        /// Lapses of late: each came within ten minutes of the one before.
        lapses: u32,
        /// How long they wait, from the attach.
        wait: Duration,
    },
    /// Every channel peer that accepted a connection after the return is up again.
    Relit {
        /// The session that they came back under.
        epoch: Epoch,
        /// From attach to the last link up; `None` when none came up.
        took: Option<Duration>,
        /// Peers that came back.
        up: usize,
        /// Peers that did not accept a connection, or failed; they are retried with backoff.
        failed: usize,
    },
    /// While no signer is there: how many live gossip links are missing of the floor has changed. 0 also when a signer has come.
    GossipFloor {
        /// So many fewer than there shall be.
        missing: usize,
        /// So many there shall be.
        wanted: usize,
    },
    /// While no signer is there: HTLCs have come to 144, 72 or 36 blocks of their expiry. Told once for each mark and deadline.
    HtlcDeadline(DeadlinesNear),
    /// Somebody plans an absence of the signer, and waits for the node's word.
    AbsencePlanned {
        /// Its number, by which the node names it.
        number: u64,
        /// HTLCs that are not settled.
        htlcs: u64,
        /// Peers that they are with.
        peers: usize,
        /// The soonest expiry, once the height is known.
        soonest: Option<HtlcDeadline>,
    },
    /// The planned absence has begun, or is not planned any more.
    AbsenceOver {
        /// Its number.
        number: u64,
        /// `lapsed`: it has begun; `withdrawn`: by whoever had planned it; `refused`: by the node; `signer_away`: the session ended by
        /// itself.
        outcome: &'static str,
    },
    /// A dial began.
    Dialing {
        /// To whom.
        peer: NodeId,
        /// Where.
        address: PeerAddress,
        /// Under which of our keys.
        identity: Identity,
    },
    /// A dial failed before the link was up.
    DialFailed {
        /// To whom.
        peer: NodeId,
        /// Where.
        address: Box<PeerAddress>,
        /// Under which of our keys.
        identity: Identity,
        /// What went wrong: a label.
        failure: &'static str,
        /// The same in words.
        detail: Box<str>,
        /// When the next attempt is due, from now; `None` when it waits for the signer.
        retry_in: Option<Duration>,
    },
    /// An inbound connection ended before it was a link.
    InboundFailed {
        /// From where. Of `accept`, which is told once until a connection can be taken again: where we listen.
        address: SocketAddr,
        /// What went wrong: a label.
        failure: &'static str,
        /// The same in words.
        detail: String,
    },
    /// A handshake ended, well or badly.
    Handshake {
        /// Who dialled.
        direction: Direction,
        /// Which of our keys it used.
        identity: Identity,
        /// `ok`, or what went wrong: a label.
        result: &'static str,
        /// How long it took, from the connection on.
        took: Duration,
    },
    /// The gateway listens for the signer.
    GatewayListening {
        /// Where.
        address: SocketAddr,
    },
    /// Somebody who wanted to be the signer was turned away, or a stream that was not attached ended.
    SignerRefused {
        /// From where.
        address: SocketAddr,
        /// Why: a label.
        failure: &'static str,
        /// The same in words.
        detail: Box<str>,
        /// The name, no secret, of the macaroon that it showed; `None` for who showed none of ours.
        macaroon: Option<Box<str>>,
    },
    /// A signer has taken another's place, which did not answer its challenge any more.
    SignerTakenOver {
        /// From where the one came that lost it.
        from: SocketAddr,
        /// From where the one comes that has it now.
        to: SocketAddr,
    },
    /// A request has headed the signer's queue for too long while its connection is alive; or no longer so.
    SignerStalled {
        /// Whether it is stalled now.
        stalled: bool,
    },
    /// The signer sent something that fits no request; it was ignored.
    SignerOdd {
        /// What: `late`, `repeated`, `unknown_id`, `wrong_type`, `empty`.
        oddity: &'static str,
    },
    /// An ECDH was refused before the signer was asked.
    EcdhThrottled {
        /// By which bound: `source`, `sources`, `strangers`, `queue`.
        scope: &'static str,
    },
    /// The signer was asked for an ECDH.
    Ecdh {
        /// For an outbound or an inbound handshake.
        source: Direction,
        /// `ok`; `away`: no signer, or it lapsed; `late`: no answer in the time of an act; `throttled`: refused by a bound, see
        /// [`EcdhThrottled`](Self::EcdhThrottled); `failed`: the signer did not give it.
        result: &'static str,
        /// How long it took.
        took: Duration,
    },
    /// A link is up: both `init` messages have passed.
    LinkUp {
        /// With whom.
        peer: NodeId,
        /// Its number.
        link: LinkId,
        /// Where the peer was dialled, or dialled from.
        address: PeerAddress,
        /// The peer's tag.
        tag: Tag,
        /// Who dialled.
        direction: Direction,
        /// Which of our keys it was made with.
        identity: Identity,
    },
    /// A link ended; its secrets are wiped.
    LinkDown {
        /// With whom.
        peer: NodeId,
        /// Its number.
        link: LinkId,
        /// The peer's tag when it ended.
        tag: Tag,
        /// Who dialled.
        direction: Direction,
        /// Which of our keys it was made with.
        identity: Identity,
        /// Why.
        reason: CloseReason,
    },
    /// A live link moved into the signer's scope, because its peer was promoted or a channel message passed.
    Leased {
        /// With whom.
        peer: NodeId,
        /// Its number.
        link: LinkId,
        /// The session that it now depends on.
        epoch: Epoch,
    },
    /// A peer's tag changed.
    Tagged {
        /// Whose.
        peer: NodeId,
        /// The tag now.
        tag: Tag,
    },
    /// A message was refused by the firewall or by the fence.
    Refused {
        /// With whom.
        peer: NodeId,
        /// On which link.
        link: LinkId,
        /// The message's type.
        kind: u16,
        /// Its name in the BOLTs, `unknown` when they have none.
        name: &'static str,
        /// What was done: `dropped`, `warned`, `closed`, `not_sent`, `fenced`.
        action: &'static str,
    },
    /// A gossip-only peer sent `channel_reestablish`: the node may have it mis-tagged. The tag is unchanged.
    MistagSuspected {
        /// Who.
        peer: NodeId,
    },
    /// A peer sent a `warning` or an `error`.
    PeerComplained {
        /// Who.
        peer: NodeId,
        /// Whether it was an `error`.
        error: bool,
        /// Its text, made fit for a log.
        text: String,
    },
    /// A stranger is banned for a time: new connections of its are turned away, those from an address unread.
    Banned {
        /// An address or a node.
        who: Banned,
        /// The last of what it did.
        offence: Offence,
        /// For how long, from now.
        lasts: Duration,
    },
    /// A pong arrived.
    Pong {
        /// From whom.
        peer: NodeId,
        /// How long after the ping.
        rtt: Duration,
    },
    /// A key was rotated.
    KeyRotated {
        /// The direction of the key.
        direction: Direction,
        /// How many times since the last such event.
        times: u64,
    },
    /// Inbound sockets that wait for a signer: how many now.
    Parked {
        /// How many.
        now: usize,
    },
    /// The peer book could not be read or written. The peers in memory are unaffected.
    BookFailed {
        /// What it says.
        detail: String,
    },
    /// A link has waited for over 10 s for the node to receive what it has read; or the node receives again.
    InboxStalled {
        /// Whether it is stalled now.
        stalled: bool,
    },
    /// A listener at the admin address is too slow: it takes nothing, or has missed events. Told once a minute at most, for all of them.
    ListenerBehind {
        /// Events that were missed since it was last told; 0 if one takes nothing. The metric counts those, too, after which nobody
        /// was behind again.
        missed: u64,
    },
    /// The drain is over.
    Drained {
        /// Links that were flushed and closed.
        closed: usize,
        /// Links that had to be reset because the deadline passed.
        overran: usize,
    },
}

impl Event {
    /// The event's name in logs and in the event stream.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Listening { .. } => "listening",
            Self::ModeChanged { .. } => "mode_changed",
            Self::SignerAttached { .. } => "signer_attached",
            Self::SignerLapsed(_) => "signer_lapsed",
            Self::HeldDown { .. } => "held_down",
            Self::Relit { .. } => "relit",
            Self::GossipFloor { .. } => "gossip_floor",
            Self::HtlcDeadline(_) => "htlc_deadline",
            Self::AbsencePlanned { .. } => "absence_planned",
            Self::AbsenceOver { .. } => "absence_over",
            Self::Dialing { .. } => "dialing",
            Self::DialFailed { .. } => "dial_failed",
            Self::InboundFailed { .. } => "inbound_failed",
            Self::Handshake { .. } => "handshake",
            Self::GatewayListening { .. } => "gateway_listening",
            Self::SignerRefused { .. } => "signer_refused",
            Self::SignerTakenOver { .. } => "signer_taken_over",
            Self::SignerStalled { .. } => "signer_stalled",
            Self::SignerOdd { .. } => "signer_odd",
            Self::EcdhThrottled { .. } => "ecdh_throttled",
            Self::Ecdh { .. } => "ecdh",
            Self::LinkUp { .. } => "link_up",
            Self::LinkDown { .. } => "link_down",
            Self::Leased { .. } => "leased",
            Self::Tagged { .. } => "tagged",
            Self::Refused { .. } => "refused",
            Self::MistagSuspected { .. } => "mistag_suspected",
            Self::PeerComplained { .. } => "peer_complained",
            Self::Banned { .. } => "banned",
            Self::Pong { .. } => "pong",
            Self::KeyRotated { .. } => "key_rotated",
            Self::Parked { .. } => "parked",
            Self::BookFailed { .. } => "book_failed",
            Self::InboxStalled { .. } => "inbox_stalled",
            Self::ListenerBehind { .. } => "listener_behind",
            Self::Drained { .. } => "drained",
        }
    }
}
