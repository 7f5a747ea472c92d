//! What goes into the supervisor's machine and what comes out of it: plain data, so that a run is a list that can be replayed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::deadlines::DeadlinesNear;
use super::roster::Urgency;
use crate::address::{KnownAddress, PeerAddress};
use crate::book::PeerRecord;
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, Direction, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::Epoch;
use std::time::Duration;

/// What the operator has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent choices, not a state machine in disguise"
)]
pub struct Policy {
    /// Longest wait of channel peers after the return of a signer that flaps; zero: they never wait.
    pub hold_down: Duration,
    /// Gossip links that there shall be while no signer is there.
    pub gossip_floor: usize,
    /// Whether personas may be used to that end, and for gossip links that are lost meanwhile.
    pub personas: bool,
    /// Whether channel peers may be met under a persona too.
    pub channel_peers: bool,
    /// The node's own key is at hand without the signer: gossip peers are dialled under it while no signer is there, and no persona is.
    pub cached_identity: bool,
    /// Whether onion services can be dialled: through a proxy.
    pub onions: bool,
    /// Whether personas dial through the proxy, wherever it goes: they are given longer.
    pub personas_by_proxy: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            hold_down: limits::HOLD_DOWN_MAX,
            gossip_floor: limits::GOSSIP_FLOOR,
            personas: true,
            channel_peers: false,
            cached_identity: false,
            onions: false,
            personas_by_proxy: false,
        }
    }
}

/// How much the machine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Peers that it knows.
    pub peers: usize,
    /// Links, dials and newcomers that it knows the peers of.
    pub links: usize,
    /// Peers that wait for a place to dial.
    pub queue: usize,
    /// Peers that wait for a time.
    pub timers: usize,
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The node wants a link with this peer kept up. What it does not say stays as it was.
    Want {
        /// Who.
        peer: NodeId,
        /// Where; tried in this order, those given by hand first. If one of these is, they replace all that was known; else what was
        /// learned before.
        addresses: Vec<KnownAddress>,
        /// What the node says of it.
        tag: Option<Tag>,
        /// How much it matters among its like.
        weight: Option<u32>,
    },
    /// What an earlier process has seen of a peer that is wanted.
    Recall {
        /// Who.
        peer: NodeId,
        /// How long ago a link with it was last up; `None`: never, as far as is known.
        seen_ago: Option<Duration>,
        /// Failures in a row; no more than [`FAILURES_RECALLED`](limits::FAILURES_RECALLED) count.
        failures: u32,
    },
    /// The node wants nothing of this peer any more.
    Unwant(NodeId),
    /// The node says what a peer is.
    Tag(NodeId, Tag),
    /// These are all the peers that the node has channels with.
    Declare(Vec<NodeId>),
    /// How urgent a channel peer is.
    Urgency(NodeId, Urgency),
    /// The node's block height.
    Height(u32),
    /// A signer session began.
    Attached(Epoch),
    /// The signer session ended.
    Lapsed,
    /// The signer is behind with what it is asked, or no longer so.
    Behind(bool),
    /// A dial ended before the link was admitted.
    DialFailed {
        /// Which.
        link: LinkId,
        /// What the failure says of the peer.
        failure: Failure,
    },
    /// A handshake is done; the link waits for a verdict.
    Authenticated {
        /// Which.
        link: LinkId,
        /// Who.
        peer: NodeId,
        /// Who dialled.
        direction: Direction,
        /// Where the peer is: what a name stood for; as it was dialled where a proxy looks names up.
        address: PeerAddress,
    },
    /// A link is up.
    Up(LinkId),
    /// A link has shown life after a probe.
    Alive(LinkId),
    /// A peer's link was last of use at this moment: it has brought more than pings and pongs.
    Active(LinkId, Moment),
    /// An admitted link has ended, and the node has been told.
    Ended {
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// An inbound link ended before it was admitted.
    Withdrawn(LinkId),
    /// Time has passed.
    Tick,
    /// Dial no more, admit no more, close all.
    Drain,
}

/// What a failed dial says of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It does not accept connections there.
    Unreachable,
    /// It accepted the connection, and then the handshake or `init` failed.
    Handshake,
    /// Somebody answered there who is not the peer: act two did not fit its key. Waiting does not mend that, another address may.
    WrongKey,
    /// The signer went away: the peer is not to blame.
    SignerAway,
    /// The supervisor turned it away, because another link is there already.
    Duplicate,
    /// We or the signer failed, and the signer is still there: the peer is not to blame. The next dial waits for a time that grows
    /// with such failures and not with the peer's, and ends when our side is seen to work again.
    Ours,
    /// This machine has no way to such an address: no IPv6, or a proxy that does not do its part. The peer is not to blame, and the next
    /// dial goes to its next address.
    NoWay,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Dial.
    Dial {
        /// The link's number.
        link: LinkId,
        /// Whom.
        peer: NodeId,
        /// Where.
        address: KnownAddress,
        /// Under a lease from the first byte, if it bears a channel.
        tag: Tag,
        /// Under the persona of this number, from 1; `None`: under the node's own key.
        persona: Option<u64>,
    },
    /// Let an authenticated link in.
    Admit {
        /// Which.
        link: LinkId,
        /// As what.
        tag: Tag,
    },
    /// Turn an authenticated link away.
    Refuse {
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// Find out whether a link's peer is alive.
    Probe(LinkId),
    /// Close a link, or give up the dial of that number.
    Close {
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// The tag of a live link's peer changed: the link moves into the signer's scope or out of it.
    Retag {
        /// Which.
        link: LinkId,
        /// The tag now.
        tag: Tag,
    },
    /// Put a peer on record.
    Save(PeerRecord),
    /// Take a peer off the record.
    Forget(NodeId),
    /// A peer's tag changed.
    Tagged {
        /// Whose.
        peer: NodeId,
        /// The tag now.
        tag: Tag,
    },
    /// A dial did not lead to a link; the next is due in `retry_in`, or when the signer returns; sooner if the gossip floor is short.
    Failed {
        /// Whom.
        peer: NodeId,
        /// The failed link.
        link: LinkId,
        /// From now; `None` when no time is set.
        retry_in: Option<Duration>,
    },
    /// A wanted peer cannot be dialled now, because no signer is there, or because it flaps.
    Held(NodeId),
    /// The signer is back, and has lapsed so often of late that channel peers wait.
    HeldDown {
        /// Lapses of late.
        lapses: u32,
        /// How long from now.
        wait: Duration,
    },
    /// How many gossip links are missing has changed.
    FloorMissing {
        /// So many less than there shall be; 0 also when the signer is there.
        missing: usize,
        /// So many there shall be.
        wanted: usize,
    },
    /// While no signer is there: HTLCs come close to their expiry.
    Deadlines(DeadlinesNear),
    /// Every channel peer that was to come back has come back or has failed to.
    Relit {
        /// Under which session.
        epoch: Epoch,
        /// From the attach to the last of them; `None` when none came.
        took: Option<Duration>,
        /// Who came back.
        up: usize,
        /// Who did not.
        failed: usize,
    },
}
