//! What a supervisor shows of itself: plain data, taken at one moment, for status pages, commands and tests.

use super::roster::{Peer, PeerState};
use super::Mode;
use crate::clock::Moment;
use crate::link::driver::Env;
use crate::link::shared::LinkState;
use crate::link::{Direction, Identity, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::{Epoch, LapseReason};
use crate::telemetry::LapseReport;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The whole at a glance. Times are since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
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
    /// Age of the oldest session.
    pub oldest_session: Duration,
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
    pub(super) fn new(env: &Env, mode: Mode, since: Duration, last: Option<(Duration, LapseReport)>) -> Self {
        let census = env.vault.census(env.clock.now());
        Self {
            node_id: env.context.node_id(),
            mode,
            epoch: env.context.state().newest(),
            since,
            links: LinkCounts {
                gossip_only: census.gossip_only,
                channel_bearing: census.channel_bearing,
                persona: census.persona,
            },
            oldest_session: census.oldest,
            last_lapse: last.map(|(at, report)| LapseView {
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

/// One peer, as [`Supervisor::peers`](super::Supervisor::peers) shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerView {
    /// Who.
    pub node_id: NodeId,
    /// Where it is, or will be dialled.
    pub address: Option<SocketAddr>,
    /// What the node says of it.
    pub tag: Tag,
    /// How much it matters among its like.
    pub weight: u32,
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
            address: link.map(|link| link.address).or_else(|| peer.shown_address()),
            tag,
            weight: peer.weight(),
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
