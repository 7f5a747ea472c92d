//! Who plays in the demo: one node, fourteen peers and a stranger, each with keys that come from the seed.
//!
//! The keys are worth nothing: anybody can make them again from the seed. It never reads a clock or opens a socket.

use super::DemoError;
use crate::node_id::{LocalKey, NodeId};
use crate::supervisor::Urgency;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Block height at which the demo takes place; the urgencies count from here.
pub(super) const HEIGHT: u32 = 900_000;

/// Blocks until a channel peer's first HTLC expires, before they are dealt out. The last peer has none pending.
const EXPIRIES: [u32; 5] = [6, 18, 40, 72, 144];

const CHANNEL_PEERS: [&str; 6] = ["Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel"];
const GOSSIP_PEERS: [&str; 8] = [
    "Juniper", "Larch", "Maple", "Oak", "Pine", "Rowan", "Willow", "Yew",
];

/// Gossip peers that dial the node; the others, and all channel peers, are dialled by it.
const DIALLERS: [&str; 3] = ["Oak", "Rowan", "Yew"];

/// What a peer is to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Gossip,
    /// Nobody that the node has heard of.
    Stranger,
}

/// One peer.
pub(super) struct Member {
    /// Its place in [`Cast::members`], and the number of its channel and gossip.
    pub(super) index: usize,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// It dials the node.
    pub(super) dials: bool,
    pub(super) key: Arc<LocalKey>,
    /// Its key in the funding output of its announced channel.
    pub(super) funding: Arc<LocalKey>,
    pub(super) urgency: Urgency,
}

impl Member {
    pub(super) fn node_id(&self) -> NodeId {
        self.key.node_id()
    }
}

/// Everybody.
pub(super) struct Cast {
    pub(super) seed: u64,
    /// Channel peers, then gossip peers, then the stranger.
    pub(super) members: Vec<Arc<Member>>,
}

impl Cast {
    /// Deals out keys and urgencies.
    ///
    /// # Errors
    /// A seed gives no private key; no such seed is known.
    pub(super) fn new(seed: u64) -> Result<Self, DemoError> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut urgencies = EXPIRIES.map(|blocks| Urgency {
            pending_htlcs: random.u32(1..5),
            earliest_expiry_height: HEIGHT.saturating_add(blocks),
            csv_delay: 144,
        });
        random.shuffle(&mut urgencies);
        let names = CHANNEL_PEERS.iter().map(|name| (*name, Kind::Channel));
        let names = names.chain(GOSSIP_PEERS.iter().map(|name| (*name, Kind::Gossip)));
        let names = names.chain([("a stranger", Kind::Stranger)]);
        let mut members = Vec::new();
        for (index, (name, kind)) in names.enumerate() {
            members.push(Arc::new(Member {
                index,
                name,
                kind,
                dials: kind == Kind::Stranger || DIALLERS.contains(&name),
                key: Arc::new(key(seed, "node", index)?),
                funding: Arc::new(key(seed, "funding", index)?),
                urgency: urgencies.get(index).copied().unwrap_or_default(),
            }));
        }
        Ok(Self { seed, members })
    }

    /// Who the node is: all that it knows of its key.
    pub(super) fn node_id(&self) -> Result<NodeId, DemoError> {
        Ok(self.node_key()?.node_id())
    }

    /// The key of the node: for its signer only.
    pub(super) fn node_key(&self) -> Result<LocalKey, DemoError> {
        key(self.seed, "pilotlight", 0)
    }

    /// Who has this key.
    pub(super) fn find(&self, id: NodeId) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.node_id() == id)
    }

    /// Everybody but the stranger.
    pub(super) fn peers(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members
            .iter()
            .filter(|member| member.kind != Kind::Stranger)
    }

    /// Everybody of that kind.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Member>> {
        self.members
            .iter()
            .filter(move |member| member.kind == kind)
    }

    /// The channel peers' names, the soonest expiry first: the order in which the node must dial them.
    pub(super) fn by_urgency(&self) -> Vec<&'static str> {
        let mut peers: Vec<_> = self.of(Kind::Channel).collect();
        peers.sort_by_key(|member| match member.urgency.pending_htlcs {
            0 => u32::MAX,
            _ => member.urgency.earliest_expiry_height,
        });
        peers.into_iter().map(|member| member.name).collect()
    }
}

fn key(seed: u64, what: &str, index: usize) -> Result<LocalKey, DemoError> {
    let mut secret: [u8; 32] =
        Sha256::digest(format!("pilotlight demo {seed} {what} {index}")).into();
    LocalKey::from_bytes(&mut secret).map_err(|_| DemoError::Seed { seed })
}
