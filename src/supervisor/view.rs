//! What a supervisor shows of itself: plain data, taken at one moment, for status pages, commands and tests.

use super::Mode;
use super::deadlines::HtlcDeadline;
use super::roster::{Peer, PeerState, Urgency};
use crate::address::{KnownAddress, PeerAddress};
use crate::clock::Moment;
use crate::link::driver::Env;
use crate::link::shared::LinkState;
use crate::link::{Direction, Identity, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::{Epoch, LapseReason};
use crate::telemetry::LapseReport;
use crate::vault::Census;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The whole at a glance. Times are since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken.
    pub at: Duration,
    /// The node.
    pub node_id: NodeId,
    /// What it can do.
    pub mode: Mode,
    /// The newest signer session, live or not.
    pub epoch: Option<Epoch>,
    /// Since when it is in that mode.
    pub since: Duration,
    /// The links.
    pub links: LinkCounts,
    /// The same by kind: every kind, those without links included.
    pub links_by_kind: Vec<LinksOfKind>,
    /// Age of the oldest session.
    pub oldest_session: Duration,
    /// When gossip last came, over all links that there have been.
    pub last_gossip_at: Option<Duration>,
    /// Inbound sockets that wait for a signer.
    pub parked: usize,
    /// Addresses and nodes that are banned.
    pub bans: usize,
    /// ECDHs that handshakes wait for, those that wait in the signer's own queue included.
    pub ecdh_in_flight: usize,
    /// How long no signer has been there since the start, in all.
    pub signer_away: Duration,
    /// The node's block height, if it has said one.
    pub block_height: Option<u32>,
    /// The first expiry of a pending HTLC, of what the node has said.
    pub htlc_deadline: Option<HtlcDeadline>,
    /// When the node's own newest update was signed, of what it has said.
    pub own_update_at: Option<Duration>,
    /// How long ago that was.
    pub own_update_age: Option<Duration>,
    /// Whether a signer session is live.
    pub signer_attached: bool,
    /// The newest lapse.
    pub last_lapse: Option<LapseView>,
}

/// How many links are live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounts {
    /// With gossip-only peers, under the node's identity.
    pub gossip_only: usize,
    /// With channel-bearing peers.
    pub channel_bearing: usize,
    /// Under a persona.
    pub persona: usize,
}

/// How many links there are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinksOfKind {
    /// What the node says of their peers.
    pub tag: Tag,
    /// Who dialled.
    pub direction: Direction,
    /// Which of our keys they were made with.
    pub identity: Identity,
    /// How many.
    pub links: usize,
}

/// What the supervisor's handle adds to what the links know.
pub(super) struct Surroundings {
    pub(super) mode: Mode,
    pub(super) since: Duration,
    pub(super) last: Option<(Duration, LapseReport)>,
    pub(super) parked: usize,
    pub(super) bans: usize,
    pub(super) signer_away: Duration,
    pub(super) chain: ChainView,
}

/// What the node has said of the chain and of its own updates.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ChainView {
    height: Option<u32>,
    soonest: Option<HtlcDeadline>,
    pub(super) own_update_at: Option<Duration>,
}

impl ChainView {
    pub(super) fn seen(&mut self, height: Option<u32>, soonest: Option<HtlcDeadline>) {
        (self.height, self.soonest) = (height, soonest);
    }
}

/// What a lapse did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LapseView {
    /// When it was reported, since the Unix epoch.
    pub at: Duration,
    /// Why.
    pub reason: LapseReason,
    /// How long raising the fence took.
    pub fence: Duration,
    /// From the fence to the last reset.
    pub teardown: Duration,
    /// Links that were torn down.
    pub dropped: usize,
    /// Links that lived on.
    pub retained: usize,
}

impl Snapshot {
    pub(super) fn new(env: &Env, around: Surroundings) -> Self {
        let census = env.vault.census(env.clock.now());
        Self {
            at: env.clock.unix(),
            node_id: env.context.node_id(),
            mode: around.mode,
            epoch: env.context.state().newest(),
            since: around.since,
            links: LinkCounts {
                gossip_only: census.gossip_only,
                channel_bearing: census.channel_bearing,
                persona: census.persona,
            },
            links_by_kind: kinds(&census),
            oldest_session: census.oldest,
            last_gossip_at: env.telemetry.frames().last_gossip_at(),
            parked: around.parked,
            bans: around.bans,
            ecdh_in_flight: env.context.ecdh_in_flight(),
            signer_away: around.signer_away,
            block_height: around.chain.height,
            htlc_deadline: around.chain.soonest,
            own_update_at: around.chain.own_update_at,
            own_update_age: around
                .chain
                .own_update_at
                .map(|at| env.clock.unix().saturating_sub(at)),
            signer_attached: env.context.is_live(),
            last_lapse: around.last.map(|(at, report)| LapseView {
                at,
                reason: report.reason,
                fence: report.fence,
                teardown: report.teardown,
                dropped: report.dropped,
                retained: report.retained,
            }),
        }
    }
}

fn kinds(census: &Census) -> Vec<LinksOfKind> {
    let mut kinds = Vec::new();
    for tag in Tag::ALL {
        for direction in Direction::ALL {
            for identity in Identity::ALL {
                kinds.push(LinksOfKind {
                    tag,
                    direction,
                    identity,
                    links: census.of(tag, direction, identity),
                });
            }
        }
    }
    kinds
}

/// One peer, as [`Supervisor::peers`](super::Supervisor::peers) shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerView {
    /// Who.
    pub node_id: NodeId,
    /// Where it is, or will be dialled.
    pub address: Option<PeerAddress>,
    /// Everywhere that it may be, the operator's word first.
    pub addresses: Vec<KnownAddress>,
    /// What the node says of it.
    pub tag: Tag,
    /// How much it matters among its like.
    pub weight: u32,
    /// How urgently it is needed back, of what the node has said.
    pub urgency: Urgency,
    /// Where it stands.
    pub state: PeerState,
    /// Its link, if it has one.
    pub link: Option<LinkView>,
}

/// A peer's link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkView {
    /// Its number.
    pub id: LinkId,
    /// Which of our keys it was made with.
    pub identity: Identity,
    /// Who dialled.
    pub direction: Direction,
    /// Since when, since the Unix epoch.
    pub since: Duration,
    /// The signer session that it depends on; `None` in the server's scope.
    pub leased_under: Option<Epoch>,
    /// Messages received.
    pub frames_in: u64,
    /// Messages sent.
    pub frames_out: u64,
    /// When gossip last came, since the Unix epoch.
    pub last_gossip_at: Option<Duration>,
}

impl PeerView {
    pub(super) fn new(
        node_id: NodeId,
        peer: &Peer,
        tag: Tag,
        link: Option<&LinkState>,
        now: Moment,
        unix: Duration,
    ) -> Self {
        Self {
            node_id,
            address: link
                .map(|link| &link.address)
                .or_else(|| peer.shown_address())
                .cloned(),
            addresses: peer.addresses().to_vec(),
            tag,
            weight: peer.weight(),
            urgency: peer.urgency(),
            state: peer.state(),
            link: link.map(|link| LinkView::new(link, now, unix)),
        }
    }
}

impl LinkView {
    fn new(link: &LinkState, now: Moment, unix: Duration) -> Self {
        let last_gossip = link.counters.last_gossip.load(Ordering::Relaxed);
        Self {
            id: link.id,
            identity: link.identity,
            direction: link.direction,
            since: unix.saturating_sub(now.since(link.since)),
            leased_under: link.leased_under(),
            frames_in: link.counters.frames_in.load(Ordering::Relaxed),
            frames_out: link.counters.frames_out.load(Ordering::Relaxed),
            last_gossip_at: (last_gossip > 0).then(|| Duration::from_secs(last_gossip)),
        }
    }
}
