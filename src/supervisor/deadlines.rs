//! How many blocks the node's HTLCs leave it: what is told as a deadline comes close while no signer is there.
//!
//! ```text
//!  blocks left   …  145 │ 144 …  73 │ 72 …  37 │ 36 …  0, and below: the HTLC has expired
//!  is told              │    144    │    72    │    36
//! ```
//!
//! A *deadline* is a peer's earliest expiry height. Each mark is told once for a deadline: not again when a reorganisation takes blocks
//! back, nor in a later absence. Who is first seen below several marks, because the height has jumped or the absence begins late, is told
//! of at the sharpest alone. Nothing is told while a signer is there: the node can act then. What is told before the first signer has come
//! does not count, for the node may have started with deadlines near and its signer on the way.
//!
//! It never looks at a chain: the height is the node's word. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::{Output, SupervisorMachine};
use super::roster::Urgency;
use crate::limits;
use crate::node_id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The first HTLC of a peer to expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HtlcDeadline {
    /// Whose.
    pub peer: NodeId,
    /// The block height at which it expires.
    pub expiry_height: u32,
    /// Blocks from the node's height up to it; 0 and less: it has expired.
    pub blocks_left: i64,
}

/// Deadlines that have come to a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlinesNear {
    /// The mark: so many blocks are left, or fewer.
    pub within: u32,
    /// Peers whose deadline has come to it since it was told last.
    pub peers: usize,
    /// The soonest of them.
    pub soonest: HtlcDeadline,
}

/// The deadlines of all peers.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadlines {
    height: Option<u32>,
    of_peers: BTreeMap<NodeId, Deadline>,
    /// The soonest first.
    order: BTreeSet<(u32, NodeId)>,
    /// There has been a signer in this process.
    signer_seen: bool,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    expiry: u32,
    /// The sharpest mark that was told.
    told: Option<u32>,
}

impl Deadlines {
    /// The node's block height, if it has said one.
    pub(super) fn height(&self) -> Option<u32> {
        self.height
    }

    /// The soonest deadline, once the height is known.
    pub(super) fn soonest(&self) -> Option<HtlcDeadline> {
        let (expiry, peer) = self.order.first()?;
        self.seen(*peer, *expiry)
    }

    /// Blocks that are left up to a height, once the node's is known.
    pub(super) fn blocks_left(&self, expiry: u32) -> Option<i64> {
        Some(i64::from(expiry) - i64::from(self.height?))
    }

    fn seen(&self, peer: NodeId, expiry_height: u32) -> Option<HtlcDeadline> {
        Some(HtlcDeadline {
            peer,
            expiry_height,
            blocks_left: self.blocks_left(expiry_height)?,
        })
    }

    /// What the node says of a peer's HTLCs. Without pending ones there is no deadline; another height is another deadline.
    fn set(&mut self, peer: NodeId, urgency: &Urgency) {
        let expiry = (urgency.pending_htlcs > 0).then_some(urgency.earliest_expiry_height);
        let before = self.of_peers.get(&peer).map(|deadline| deadline.expiry);
        if before == expiry {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, peer));
            self.of_peers.remove(&peer);
        }
        if let Some(expiry) = expiry {
            self.order.insert((expiry, peer));
            self.of_peers.insert(peer, Deadline { expiry, told: None });
        }
    }

    /// A signer is there.
    pub(super) fn attached(&mut self) {
        if !std::mem::replace(&mut self.signer_seen, true) {
            for deadline in self.of_peers.values_mut() {
                deadline.told = None;
            }
        }
    }

    /// What is to be told of these peers now, the widest mark first; it counts as told.
    fn tell(&mut self, peers: &[NodeId]) -> Vec<DeadlinesNear> {
        let mut near: Vec<DeadlinesNear> = Vec::new();
        for mark in limits::HTLC_MARKS {
            let mut found: Option<DeadlinesNear> = None;
            for peer in peers {
                let Some(deadline) = self.of_peers.get(peer).copied() else {
                    continue;
                };
                let Some(seen) = self.seen(*peer, deadline.expiry) else {
                    continue;
                };
                let told_already = deadline.told.is_some_and(|told| told <= mark);
                if sharpest(seen.blocks_left) != Some(mark) || told_already {
                    continue;
                }
                if let Some(deadline) = self.of_peers.get_mut(peer) {
                    deadline.told = Some(mark);
                }
                let so_far = found.get_or_insert(DeadlinesNear {
                    within: mark,
                    peers: 0,
                    soonest: seen,
                });
                so_far.peers += 1;
                if seen.blocks_left < so_far.soonest.blocks_left {
                    so_far.soonest = seen;
                }
            }
            near.extend(found);
        }
        near
    }

    /// The peers whose deadline is within the widest mark.
    fn within_marks(&self) -> Vec<NodeId> {
        let (Some(height), Some(widest)) = (self.height, limits::HTLC_MARKS.first()) else {
            return Vec::new();
        };
        let last = height.saturating_add(*widest);
        let near = self.order.iter().take_while(|(expiry, _)| *expiry <= last);
        near.map(|(_, peer)| *peer).collect()
    }
}

/// The sharpest mark that so few blocks have come to.
fn sharpest(blocks_left: i64) -> Option<u32> {
    let passed = |mark: &u32| blocks_left <= i64::from(*mark);
    limits::HTLC_MARKS.into_iter().filter(passed).min()
}

impl SupervisorMachine {
    /// The node's block height, if it has said one.
    pub fn block_height(&self) -> Option<u32> {
        self.deadlines.height()
    }

    /// The first HTLC to expire of all that the node has spoken of, once it has said its height.
    pub fn soonest_deadline(&self) -> Option<HtlcDeadline> {
        self.deadlines.soonest()
    }

    /// The peers with pending HTLCs, the soonest expiry first, and the blocks that are left to each.
    pub fn pending(&self) -> impl Iterator<Item = (NodeId, Urgency, Option<i64>)> + '_ {
        self.deadlines.order.iter().filter_map(|(expiry, id)| {
            let urgency = self.peers.get(id)?.urgency;
            Some((*id, urgency, self.deadlines.blocks_left(*expiry)))
        })
    }

    pub(super) fn set_height(&mut self, height: u32, out: &mut Vec<Output>) {
        self.deadlines.height = Some(height);
        self.tell_deadlines(out);
    }

    pub(super) fn set_urgency(&mut self, id: NodeId, urgency: Urgency, out: &mut Vec<Output>) {
        if !self.peers.contains(&id) && self.is_full() {
            return;
        }
        self.peers.entry(id).urgency = urgency;
        self.deadlines.set(id, &urgency);
        self.requeue(id);
        self.forget_if_idle(id);
        if self.tells_deadlines() {
            let near = self.deadlines.tell(&[id]);
            out.extend(near.into_iter().map(Output::Deadlines));
        }
    }

    /// Nothing is urgent any more of a peer that the node does not want.
    pub(super) fn forget_urgency(&mut self, id: NodeId) {
        self.deadlines.set(id, &Urgency::default());
    }

    /// What must be told as the height changes, or as an absence begins.
    pub(super) fn tell_deadlines(&mut self, out: &mut Vec<Output>) {
        if self.tells_deadlines() {
            let peers = self.deadlines.within_marks();
            let near = self.deadlines.tell(&peers);
            out.extend(near.into_iter().map(Output::Deadlines));
        }
    }

    fn tells_deadlines(&self) -> bool {
        !self.is_live() && !self.is_draining()
    }
}
