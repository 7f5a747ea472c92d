//! Who is dialled next: the part of [`SupervisorMachine`] that keeps the queue, the places and the waits in step.
//!
//! Every wanted peer without a link is queued, dialled, held for want of a signer, or waits out a failure. Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::{Output, SupervisorMachine};
use super::roster::{Backoff, DialKey, Peer, Wait};
use crate::clock::Moment;
use crate::limits;
use crate::link::LinkId;
use crate::node_id::NodeId;
use std::time::Duration;

impl SupervisorMachine {
    /// Sees to it that a wanted peer without a link is on its way to one.
    pub(super) fn pursue(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if self.draining || !peer.is_missing() || peer.wait != Wait::None {
            return;
        }
        if self.speaks_for_node(id) {
            let key = DialKey::of(self.tag_of(id), peer);
            self.set_wait(id, Wait::Queued(key));
        } else {
            self.hold(id, out);
        }
    }

    /// No signer is there, or it flaps: the dial waits for its return, or for the end of the hold-down.
    pub(super) fn hold(&mut self, id: NodeId, out: &mut Vec<Output>) {
        self.set_wait(id, Wait::Held);
        out.push(Output::Held(id));
    }

    /// Dials the most urgent while there are places and the signer keeps up.
    pub(super) fn fill_places(&mut self, out: &mut Vec<Output>) {
        while self.dialing < limits::DIALS_IN_FLIGHT && !self.our_side.behind {
            let Some((_, id)) = self.queue.first().copied() else {
                return;
            };
            self.set_wait(id, Wait::None);
            let tag = self.tag_of(id);
            let link = self.next_link();
            let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_missing()) else {
                continue;
            };
            let Some(address) = peer.address().cloned() else {
                continue;
            };
            peer.dial = Some(link);
            peer.dialled = Some(address.address.clone());
            peer.reached = None;
            self.own(link, id);
            self.dialing += 1;
            out.push(Output::Dial {
                link,
                peer: id,
                address,
                tag,
                persona: None,
            });
        }
    }

    pub(super) fn dial_is_over(&mut self, id: NodeId, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.dial.take_if(|dial| *dial == link).is_some()
        {
            self.dialing = self.dialing.saturating_sub(1);
        }
    }

    /// Changes what a peer waits for, and keeps the queue and the timers in step.
    pub(super) fn set_wait(&mut self, id: NodeId, wait: Wait) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Wait::Queued(key) = peer.wait {
            self.queue.remove(&(key, id));
        }
        if let Wait::Queued(key) = wait {
            self.queue.insert((key, id));
        }
        peer.wait = wait;
        self.reschedule(id);
    }

    /// The peer's place in the queue follows its tag, urgency and weight.
    pub(super) fn requeue(&mut self, id: NodeId) {
        if let Some(peer) = self.peers.get(&id)
            && let Wait::Queued(_) = peer.wait
        {
            let key = DialKey::of(self.tag_of(id), peer);
            self.set_wait(id, Wait::Queued(key));
        }
    }

    /// In a drain nothing is timed: all links have been told to close, and one that comes up before it has heard so makes no plans.
    pub(super) fn reschedule(&mut self, id: NodeId) {
        let peer = self.peers.get(&id).filter(|_| !self.draining);
        let due = peer.and_then(Peer::due);
        self.set_timer(id, due);
    }

    /// Nothing rings for this peer any more.
    pub(super) fn unschedule(&mut self, id: NodeId) {
        self.set_timer(id, None);
    }

    fn set_timer(&mut self, id: NodeId, due: Option<Moment>) {
        let Some(place) = self.peers.place(&id) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.timer != due) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut peer.timer, due) {
            self.timers.remove(&(old, place));
        }
        if let Some(due) = due {
            self.timers.insert((due, place));
        }
    }

    /// The next dial of a peer that we or the signer failed. Nothing is held against the peer; but a signer that refuses everybody
    /// must not cost a thousand peers a connection a second each, so the waits grow here too, to a bound of their own.
    pub(super) fn try_soon(&mut self, now: Moment, id: NodeId) -> Option<Duration> {
        let speaks = self.live || self.speaks_for_node(id);
        let peer = self.peers.get_mut(&id)?;
        if self.draining || !peer.is_missing() {
            return None;
        }
        peer.sought_from = None;
        let delay = peer.strain.next(limits::OUR_BACKOFF_MAX, &mut self.random);
        if !speaks {
            return self.persona_retry(now, id, delay);
        }
        let until = now.after(delay);
        self.set_wait(id, Wait::Backoff { until, ours: true });
        Some(delay)
    }

    /// Nothing leads from here to the address that was dialled: the next dial goes to the peer's next one. Nothing is held against the
    /// peer, and that other dials work says nothing of this way.
    pub(super) fn find_a_way(&mut self, now: Moment, id: NodeId) -> Option<Duration> {
        let peer = self.peers.get_mut(&id)?;
        peer.next_address = peer.next_address.wrapping_add(1);
        let delay = self.try_soon(now, id);
        if let Some(Wait::Backoff { until, .. }) = self.peers.get(&id).map(|peer| peer.wait) {
            self.set_wait(id, Wait::Backoff { until, ours: false });
        }
        delay
    }

    /// A dial of ours has got its ECDH and all else that it needs of us. After a run of failures that were ours, whoever waits only
    /// because of them goes on at once. Only after a run: where every other dial fails the waits stay as they are.
    pub(super) fn our_side_works(&mut self, out: &mut Vec<Output>) {
        let run = std::mem::take(&mut self.our_side.failures);
        if run < limits::OUR_FAILURES {
            return;
        }
        let waiting: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer.wait, Wait::Backoff { ours: true, .. }))
            .map(|(id, _)| id)
            .collect();
        for id in waiting {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.strain = Backoff::default();
            }
            self.set_wait(id, Wait::None);
            self.pursue(id, out);
        }
    }

    /// Somebody else answers at the peer's address: on to its next one. If there is none left the wait is the longest there is.
    pub(super) fn look_elsewhere(&mut self, now: Moment, id: NodeId) -> Option<Duration> {
        let peer = self.peers.get_mut(&id)?;
        if peer.is_elsewhere() {
            peer.backoff = Backoff::hopeless();
        }
        self.back_off(now, id, false)
    }

    /// The next dial of a peer that failed us waits, and goes to its next address. `None`: no dial is due by time. `gone`: all that it
    /// did was not to be there, or to go away.
    pub(super) fn back_off(&mut self, now: Moment, id: NodeId, gone: bool) -> Option<Duration> {
        let speaks = self.live || self.speaks_for_node(id);
        let peer = self.peers.get_mut(&id)?;
        peer.next_address = peer.next_address.wrapping_add(1);
        let delay = peer.backoff.next(limits::BACKOFF_MAX, &mut self.random);
        peer.sought_from = gone.then(|| now.after(limits::FLOOR_AGAIN));
        if self.draining || !peer.is_missing() {
            return None;
        }
        if !speaks {
            return self.persona_retry(now, id, delay);
        }
        let until = now.after(delay);
        self.set_wait(id, Wait::Backoff { until, ours: false });
        Some(delay)
    }
}
