//! Who is let in when a handshake is done: the part of [`SupervisorMachine`] that settles duplicates.
//!
//! One link for each pair of keys. Opposite directions: the link dialled by the smaller key stays (lnd's rule), so that both sides
//! choose the same one. Same direction: the newest. Before a newcomer is refused the incumbent is probed, and replaced if it is
//! silent: a peer that has rebooted is not kept out by its own dead link. Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::{Output, SupervisorMachine};
use super::roster::{Contender, Incumbent};
use crate::address::PeerAddress;
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, Direction, LinkId, Tag};
use crate::node_id::NodeId;

impl SupervisorMachine {
    pub(super) fn authenticated(
        &mut self,
        now: Moment,
        link: LinkId,
        id: NodeId,
        direction: Direction,
        address: PeerAddress,
        out: &mut Vec<Output>,
    ) {
        if self.is_persona(link) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.met_at(address, direction);
            }
            self.persona_authenticated(link, id, out);
            return;
        }
        if let Some(reason) = self.bar(id) {
            self.rebuff(now, id, link, direction, reason, out);
            return;
        }
        if direction == Direction::Inbound && !self.has_room_for(id) {
            let reason = CloseReason::Refused;
            out.push(Output::Refuse { link, reason });
            return;
        }
        if direction == Direction::Outbound {
            // A stranger's success must not set off dials of ours.
            self.our_side_works(out);
        }
        let dialled_by_smaller = (direction == Direction::Outbound) == (self.own_key() < id);
        self.peers.entry(id).met_at(address, direction);
        self.own(link, id);
        let peer = self.peers.entry(id);
        let Some(incumbent) = peer.incumbent else {
            self.admit(now, id, link, direction, out);
            return;
        };
        if let Some(earlier) = peer.contender.take() {
            // The newest of two contenders is the one that the peer means.
            out.push(Output::Refuse {
                link: earlier.link,
                reason: CloseReason::Duplicate,
            });
        }
        if incumbent.direction == direction || dialled_by_smaller {
            peer.contender = Some(Contender {
                link,
                direction,
                probe_until: None,
            });
            out.push(Output::Close {
                link: incumbent.id,
                reason: CloseReason::Duplicate,
            });
        } else {
            let until = now.after(limits::PROBE_DEADLINE);
            peer.contender = Some(Contender {
                link,
                direction,
                probe_until: Some(until),
            });
            out.push(Output::Probe(incumbent.id));
        }
        self.reschedule(id);
    }

    /// Turns a link away. A channel peer that comes again and again while only the node's key is at hand waits longer each time for its
    /// refusal, so that it comes less often; should the signer return meanwhile, it is let in. One link of a peer waits, the newest. A
    /// dial of our own, to a peer that has become a channel peer meanwhile, waits for nothing: it is made again when the signer returns.
    fn rebuff(
        &mut self,
        now: Moment,
        id: NodeId,
        link: LinkId,
        direction: Direction,
        reason: CloseReason,
        out: &mut Vec<Output>,
    ) {
        let mut refused = Some((link, reason));
        if self.cached_identity
            && direction == Direction::Inbound
            && reason == CloseReason::SignerAway
            && let Some(peer) = self.peers.get_mut(&id)
        {
            let first = peer.rebuffs.failures() == 0;
            let wait = peer
                .rebuffs
                .next(limits::HELD_DOWN_INBOUND, &mut self.random);
            if !first {
                let contender = Contender {
                    link,
                    direction,
                    probe_until: Some(now.after(wait)),
                };
                let earlier = peer.contender.replace(contender);
                refused = earlier.map(|earlier| (earlier.link, CloseReason::Duplicate));
                self.own(link, id);
                self.reschedule(id);
            }
        }
        if let Some((link, reason)) = refused {
            out.push(Output::Refuse { link, reason });
        }
    }

    /// Why a peer cannot be let in at all.
    fn bar(&self, id: NodeId) -> Option<CloseReason> {
        if self.is_draining() {
            return Some(CloseReason::Draining);
        }
        // Nobody else has our key: a link with ourselves, made by a wrong address or a mirror of our own acts.
        if id == self.own_key() {
            return Some(CloseReason::Refused);
        }
        if self.peer(id).is_none() && self.is_full() {
            return Some(CloseReason::Refused);
        }
        // After act three, before init: the peer learns nothing but that its channel partner is not there.
        (self.tag_of(id) == Tag::ChannelBearing && !self.is_live())
            .then_some(CloseReason::SignerAway)
    }

    /// Lets a link in, unless something bars it since it was authenticated.
    pub(super) fn admit(
        &mut self,
        now: Moment,
        id: NodeId,
        link: LinkId,
        direction: Direction,
        out: &mut Vec<Output>,
    ) {
        if let Some(reason) = self.bar(id) {
            out.push(Output::Refuse { link, reason });
            return;
        }
        if self.is_held_down(id) {
            self.wait_out_hold_down(now, id, link, direction, out);
            return;
        }
        let seen_at = self
            .peers
            .get(&id)
            .and_then(|peer| peer.seen_at.as_ref()?.ip());
        if let (Direction::Inbound, Some(from)) = (direction, seen_at) {
            self.receive_guest(now, link, id, from, out);
        }
        self.make_incumbent(
            id,
            Incumbent {
                id: link,
                direction,
                up_since: None,
                doomed: false,
            },
        );
        out.push(Output::Admit {
            link,
            tag: self.tag_of(id),
        });
    }

    /// The signer flaps: the link waits for the end of the hold-down if the peer will wait so long, else it is turned away.
    fn wait_out_hold_down(
        &mut self,
        now: Moment,
        id: NodeId,
        link: LinkId,
        direction: Direction,
        out: &mut Vec<Output>,
    ) {
        let soon = now.after(limits::HELD_DOWN_INBOUND);
        let waits = self.held_down_until().is_some_and(|until| until <= soon);
        let refused = match self.peers.get_mut(&id) {
            Some(peer) if waits => {
                let contender = Contender {
                    link,
                    direction,
                    probe_until: None,
                };
                // The newest is the one that the peer means.
                let earlier = peer.contender.replace(contender);
                earlier.map(|earlier| (earlier.link, CloseReason::Duplicate))
            }
            _ => Some((link, CloseReason::HeldDown)),
        };
        if let Some((link, reason)) = refused {
            out.push(Output::Refuse { link, reason });
        }
    }

    /// The incumbent has shown life: the newcomer is refused. Its own end cleans up after it.
    pub(super) fn alive(&mut self, link: LinkId, out: &mut Vec<Output>) {
        let Some(id) = self.owner(link) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.incumbent.is_some_and(|incumbent| incumbent.id == link)
            && let Some(contender) = peer
                .contender
                .take_if(|contender| contender.probe_until.is_some())
        {
            out.push(Output::Refuse {
                link: contender.link,
                reason: CloseReason::Duplicate,
            });
            self.reschedule(id);
        }
    }

    /// The incumbent has stayed silent: the newcomer replaces it.
    pub(super) fn probe_is_over(&mut self, now: Moment, id: NodeId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.incumbent.is_none()
            && let Some(contender) = peer
                .contender
                .take_if(|waiting| waiting.probe_until.is_some_and(|until| until <= now))
        {
            let (link, reason) = (contender.link, CloseReason::SignerAway);
            out.push(Output::Refuse { link, reason });
            return;
        }
        if let (Some(incumbent), Some(contender)) = (peer.incumbent, &mut peer.contender)
            && contender.probe_until.is_some_and(|until| until <= now)
        {
            contender.probe_until = None;
            out.push(Output::Close {
                link: incumbent.id,
                reason: CloseReason::Duplicate,
            });
        }
    }
}
