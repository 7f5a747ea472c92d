//! What the node says of its peers: the part of [`SupervisorMachine`] that takes wishes and tags.
//!
//! A wish is kept until it is taken back; a tag until another is said. Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::{Output, SupervisorMachine};
use super::roster::{Urgency, Wait};
use crate::address::KnownAddress;
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, Tag};
use crate::node_id::NodeId;
use std::collections::BTreeSet;

impl SupervisorMachine {
    pub(super) fn want(
        &mut self,
        now: Moment,
        id: NodeId,
        addresses: Vec<KnownAddress>,
        tag: Option<Tag>,
        weight: Option<u32>,
        out: &mut Vec<Output>,
    ) {
        // A dial of ourselves could only be refused, again and again.
        if id == self.own_key || !self.peers.contains(&id) && self.is_full() {
            return;
        }
        let lot = self.random.u32(..);
        let onions = self.onions;
        let peer = self.peers.entry(id);
        (peer.persona_until, peer.persona_barred) = (None, None);
        peer.wanted = true;
        if peer.lot == 0 {
            peer.lot = lot;
        }
        if !addresses.is_empty() {
            peer.set_addresses(addresses, onions);
            self.wait_for_no_unreachable(id);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(weight) = weight {
            peer.weight = weight;
        }
        out.push(Output::Save(peer.record(id)));
        if let Some(tag) = tag {
            self.say(now, id, tag, out);
        }
        // Asked for by name: an earlier failure is no reason to wait. Who is held already is said to be so again, for whoever asks
        // now must hear at once that no signer is there (P5). And who cannot be dialled any more waits for nothing.
        if self.peers.get(&id).is_some_and(|peer| {
            !peer.is_dialable() || matches!(peer.wait, Wait::Backoff { .. } | Wait::Held)
        }) {
            self.set_wait(id, Wait::None);
        }
        self.pursue(id, out);
        // It may have been in the queue under another weight.
        self.requeue(id);
        self.reschedule(id);
    }

    /// A return waits for nobody who cannot be dialled any more, but for a dial that is under way.
    pub(super) fn wait_for_no_unreachable(&mut self, id: NodeId) {
        let peer = self.peers.get(&id);
        let unreachable = peer.is_none_or(|peer| !peer.is_dialable() && peer.dial.is_none());
        if unreachable && let Some(relight) = &mut self.relight {
            relight.forget(id);
        }
    }

    pub(super) fn unwant(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        (peer.wanted, peer.lost) = (false, false);
        (peer.persona_until, peer.persona_barred) = (None, None);
        peer.persona_refused = false;
        peer.said = None;
        // It may live on until its link has ended, but as a stranger: what the node said of it is gone.
        peer.addresses.clear();
        (peer.dialable, peer.weight) = (0, 0);
        if let Some(contender) = peer.contender.take() {
            out.push(Output::Refuse {
                link: contender.link,
                reason: CloseReason::Removed,
            });
        }
        for link in peer.links() {
            out.push(Output::Close {
                link,
                reason: CloseReason::Removed,
            });
        }
        peer.urgency = Urgency::default();
        self.forget_urgency(id);
        self.set_wait(id, Wait::None);
        if let Some(relight) = &mut self.relight {
            relight.forget(id);
        }
        out.push(Output::Forget(id));
        self.forget_if_idle(id);
    }

    /// The node says what a peer is.
    pub(super) fn say(&mut self, now: Moment, id: NodeId, tag: Tag, out: &mut Vec<Output>) {
        // A full table must not make a channel peer look like a stranger: those the node vouches for have no bound but the node's.
        if tag == Tag::GossipOnly && !self.peers.contains(&id) && self.is_full() {
            return;
        }
        let before = self.tag_of(id);
        let peer = self.peers.entry(id);
        if peer.said.replace(tag) != Some(tag) {
            out.push(Output::Save(peer.record(id)));
        }
        if before != tag {
            self.retagged(now, id, tag, out);
        }
    }

    fn retagged(&mut self, now: Moment, id: NodeId, tag: Tag, out: &mut Vec<Output>) {
        out.push(Output::Tagged { peer: id, tag });
        if tag == Tag::ChannelBearing && !self.floor.meets_channel_peers() {
            self.close_persona(id, out);
        }
        let live = self.live;
        if let Some(incumbent) = self
            .peers
            .get_mut(&id)
            .and_then(|peer| peer.incumbent.as_mut())
        {
            // Without a signer it gets no lease, and is closed.
            incumbent.doomed |= tag == Tag::ChannelBearing && !live;
            out.push(Output::Retag {
                link: incumbent.id,
                tag,
            });
        }
        self.requeue(id);
        self.follow_hold_down(now, id, out);
    }

    /// A peer that has become a channel peer waits for the signer, and waits out the hold-down; one that is none any more may not have to.
    fn follow_hold_down(&mut self, now: Moment, id: NodeId, out: &mut Vec<Output>) {
        let speaks = self.speaks_for_node(id);
        match self.peers.get(&id).map(|peer| peer.wait) {
            Some(Wait::Queued(_) | Wait::Backoff { .. }) if !speaks => self.hold(id, out),
            Some(Wait::Held) if speaks => self.release_one(now, id, out),
            _ => {}
        }
    }

    /// The list is the whole truth: whoever is not in it has no channel with the node.
    pub(super) fn declare(&mut self, now: Moment, channel_peers: &[NodeId], out: &mut Vec<Output>) {
        let before: Vec<(NodeId, Tag)> = self
            .peers
            .iter()
            .map(|(id, _)| (id, self.tag_of(id)))
            .collect();
        let listed: BTreeSet<NodeId> = channel_peers
            .iter()
            .copied()
            .take(limits::PEERS_MAX)
            .collect();
        for id in &listed {
            self.say(now, *id, Tag::ChannelBearing, out);
        }
        self.declared = true;
        for (id, tag) in before {
            if listed.contains(&id) {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&id)
                && peer.said == Some(Tag::ChannelBearing)
            {
                peer.said = Some(Tag::GossipOnly);
                out.push(Output::Save(peer.record(id)));
            }
            let tag_now = self.tag_of(id);
            if tag_now != tag {
                self.retagged(now, id, tag_now, out);
            }
        }
    }
}
