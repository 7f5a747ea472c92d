//! What the supervisor decides: who is dialled, when, in which order; who is admitted; who is closed.
//!
//! ```text
//!              want           slot free, signer keeps up   up
//!   unknown ─────────▶ queued ───────────────▶ dialling ────────▶ linked
//!                       ▲  ▲                      │ failed           │ ended
//!        signer returns │  │ the wait is over     ▼                  │
//!                      held ◀───── lapse ───── backoff ◀─────────────┘
//! ```
//!
//! Pure: inputs, `now` and a seed in; outputs and the next deadline out. It never reads a clock, opens a socket or waits. A bug in
//! it replays from a list of inputs.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::deadlines::Deadlines;
use super::floor::Floor;
use super::guests::Guests;
use super::hold_down::HoldDown;
use super::peers::{Peers, Place};
use super::relight::Relight;
use super::roster::{Backoff, DialKey, Incumbent, OurSide, Peer, Wait};
use super::seek::has_left;
use super::seen::Seen;
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::Epoch;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

pub use super::orders::{Failure, Input, Load, Output, Policy};
pub use super::roster::{PeerState, Urgency};

/// The state of all peers. A clone goes on from here as the original does, to the same draws.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "choices, and facts that do not depend on one another"
)]
pub struct SupervisorMachine {
    pub(super) own_key: NodeId,
    pub(super) random: fastrand::Rng,
    pub(super) live: bool,
    pub(super) draining: bool,
    /// The node has said, in this process, which peers it has channels with.
    pub(super) declared: bool,
    pub(super) peers: Peers,
    /// Whose each link is: admitted ones, contenders, and dials under way.
    owners: HashMap<LinkId, Place>,
    pub(super) next_link: u64,
    /// Peers that wait for a place to dial, the most urgent first.
    pub(super) queue: BTreeSet<(DialKey, NodeId)>,
    pub(super) dialing: usize,
    pub(super) our_side: OurSide,
    pub(super) timers: BTreeSet<(Moment, Place)>,
    pub(super) relight: Option<Relight>,
    pub(super) guests: Guests,
    pub(super) hold_down: HoldDown,
    pub(super) floor: Floor,
    /// The node speaks for itself to gossip peers without its signer.
    pub(super) cached_identity: bool,
    pub(super) deadlines: Deadlines,
    /// The live session.
    pub(super) epoch: Option<Epoch>,
    /// Whether onion services can be dialled.
    pub(super) onions: bool,
}

impl SupervisorMachine {
    /// No peers, no signer. `seed` spreads the backoffs.
    pub fn new(own_key: NodeId, seed: u64) -> Self {
        Self {
            own_key,
            random: fastrand::Rng::with_seed(seed),
            live: false,
            draining: false,
            declared: false,
            peers: Peers::default(),
            owners: HashMap::new(),
            next_link: 0,
            queue: BTreeSet::new(),
            dialing: 0,
            our_side: OurSide::default(),
            timers: BTreeSet::new(),
            relight: None,
            guests: Guests::default(),
            hold_down: HoldDown::new(limits::HOLD_DOWN_MAX),
            floor: Floor::new(&Policy::default()),
            cached_identity: false,
            deadlines: Deadlines::default(),
            epoch: None,
            onions: false,
        }
    }

    /// With what the operator has chosen.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.hold_down = HoldDown::new(policy.hold_down);
        self.floor = Floor::new(&policy);
        self.cached_identity = policy.cached_identity;
        self.onions = policy.onions;
        self
    }

    /// Outbound links have even numbers; the listener numbers inbound ones oddly.
    pub(super) fn next_link(&mut self) -> LinkId {
        self.next_link = self.next_link.wrapping_add(2);
        LinkId(self.next_link)
    }

    /// When [`Input::Tick`] is due next.
    pub fn deadline(&self) -> Option<Moment> {
        let peers = self.timers.first().map(|(at, _)| *at);
        [peers, self.hold_down.until(), self.floor_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// How much is held in all, to be compared with what there is (P9).
    pub fn load(&self) -> Load {
        Load {
            peers: self.peers.len(),
            links: self.owners.len(),
            queue: self.queue.len(),
            timers: self.timers.len(),
        }
    }

    /// Dials under way, from [`Output::Dial`] until the link is up or the dial is over.
    pub fn dialing(&self) -> usize {
        self.dialing
    }

    /// What a peer is: what the node said of it, else channel-bearing until the node has declared its channel peers (fail
    /// safe), else gossip-only.
    pub fn tag_of(&self, peer: NodeId) -> Tag {
        let known = self.peers.get(&peer);
        known
            .and_then(|known| known.said)
            .unwrap_or(self.tag_of_unknown())
    }

    /// What a peer is of which the node has said nothing.
    fn tag_of_unknown(&self) -> Tag {
        if self.declared {
            Tag::GossipOnly
        } else {
            Tag::ChannelBearing
        }
    }

    /// Whether no further peer is taken in, save channel peers that the node declares.
    pub fn is_full(&self) -> bool {
        self.peers.len() >= limits::PEERS_MAX
    }

    /// Every peer, in the order of their keys.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        let mut peers: Vec<_> = self.peers.iter().collect();
        peers.sort_unstable_by_key(|(id, _)| *id);
        peers.into_iter()
    }

    /// One peer.
    pub fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// Whose a link is.
    pub fn owner(&self, link: LinkId) -> Option<NodeId> {
        self.peers.at(*self.owners.get(&link)?)
    }

    /// A link is a known peer's from now on.
    pub(super) fn own(&mut self, link: LinkId, id: NodeId) {
        if let Some(place) = self.peers.place(&id) {
            self.owners.insert(link, place);
        }
    }

    /// A link is nobody's any more. Whose it was.
    pub(super) fn disown(&mut self, link: LinkId) -> Option<NodeId> {
        self.peers.at(self.owners.remove(&link)?)
    }

    /// Links that are somebody's, and dials that are to be some.
    pub(super) fn owned(&self) -> usize {
        self.owners.len()
    }

    /// Takes one input and appends what is to be done to `out`.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        let subject = self.subject(&input);
        match input {
            Input::Want {
                peer,
                addresses,
                tag,
                weight,
            } => self.want(now, peer, addresses, tag, weight, out),
            Input::Recall {
                peer,
                seen_ago,
                failures,
            } => self.recall(now, peer, seen_ago, failures),
            Input::Unwant(peer) => self.unwant(peer, out),
            Input::Tag(peer, tag) => self.say(now, peer, tag, out),
            Input::Declare(peers) => self.declare(now, &peers, out),
            Input::Urgency(peer, urgency) => self.set_urgency(peer, urgency, out),
            Input::Height(height) => return self.set_height(height, out),
            Input::Attached(epoch) => self.attached(now, epoch, out),
            Input::Lapsed => self.lapsed(now, out),
            Input::Behind(behind) => self.our_side.behind = behind,
            Input::DialFailed { link, failure } => self.dial_failed(now, link, failure, out),
            Input::Authenticated {
                link,
                peer,
                direction,
                address,
            } => {
                self.authenticated(now, link, peer, direction, address, out);
            }
            Input::Up(link) => self.up(now, link, out),
            Input::Alive(link) => self.alive(link, out),
            Input::Active(link, at) => return self.guests.active(link, at),
            Input::Ended { link, reason } => self.ended(now, link, reason, out),
            Input::Withdrawn(link) => self.withdrawn(now, link, out),
            Input::Tick => self.tick(now, out),
            Input::Drain => self.drain(out),
        }
        self.fill_places(out);
        self.review_subject(&subject);
        self.fill_floor(now, out);
        self.finish_relight(out);
    }

    /// Whether channel peers are still to come back after the newest attach.
    pub fn is_relighting(&self) -> bool {
        self.relight.is_some() || self.hold_down.until().is_some()
    }

    /// Until when channel peers wait because the signer flaps.
    pub fn held_down_until(&self) -> Option<Moment> {
        self.hold_down.until()
    }

    /// Whether no new dial begins because the signer has too much to do.
    pub fn is_behind(&self) -> bool {
        self.our_side.behind
    }

    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether a peer may be dialled as the node now: the signer is there and does not flap, or the peer is one for whom the key at hand is
    /// enough.
    pub(super) fn speaks_for_node(&self, id: NodeId) -> bool {
        if self.live {
            !self.is_held_down(id)
        } else {
            self.cached_identity && self.tag_of(id) == Tag::GossipOnly
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(super) fn own_key(&self) -> NodeId {
        self.own_key
    }

    fn attached(&mut self, now: Moment, epoch: Epoch, out: &mut Vec<Output>) {
        self.live = true;
        self.epoch = Some(epoch);
        self.deadlines.attached();
        self.our_side.failures = 0;
        let wait = if self.draining {
            Duration::ZERO
        } else {
            self.hold_down.attached(now)
        };
        self.relight = None;
        if wait.is_zero() {
            self.begin_relight(now);
        } else {
            let lapses = self.hold_down.lapses();
            out.push(Output::HeldDown { lapses, wait });
        }
        self.personas_give_way(now, out);
        let ids = self.peers.ids();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.absolve();
            let waiting = peer.incumbent.is_none().then(|| peer.contender.take());
            if let Some(contender) = waiting.flatten() {
                // It was told nothing yet, and now there is somebody to speak for the channel.
                self.admit(now, id, contender.link, contender.direction, out);
            }
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if !matches!(peer.wait, Wait::Queued(_)) {
                self.set_wait(id, Wait::None);
            }
            self.pursue(id, out);
        }
    }

    /// From now on the return of the channel peers is counted: all that are wanted and have no link that lives on.
    fn begin_relight(&mut self, now: Moment) {
        let missing = |(id, peer): (NodeId, &Peer)| {
            let missing = peer.will_be_missing() && self.tag_of(id) == Tag::ChannelBearing;
            missing.then_some(id)
        };
        let waiting = self.peers.iter().filter_map(missing).collect();
        self.relight = self.epoch.map(|epoch| Relight::new(epoch, now, waiting));
    }

    /// The hold-down is over: who dialled us meanwhile is let in, everybody else is dialled.
    fn release(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.begin_relight(now);
        let held: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.wait == Wait::Held || peer.contender.is_some())
            .map(|(id, _)| id)
            .collect();
        for id in held {
            self.release_one(now, id, out);
        }
    }

    /// Whoever waits to be let in is let in if nobody else has its place; else the peer is dialled.
    pub(super) fn release_one(&mut self, now: Moment, id: NodeId, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.incumbent.is_none()
            && let Some(contender) = peer.contender.take()
        {
            self.admit(now, id, contender.link, contender.direction, out);
        }
        let is_held = |peer: &Peer| peer.wait == Wait::Held;
        if self.peers.get(&id).is_some_and(is_held) {
            self.set_wait(id, Wait::None);
        }
        self.pursue(id, out);
    }

    /// Whether a peer waits because the signer flaps.
    pub(super) fn is_held_down(&self, id: NodeId) -> bool {
        self.hold_down.until().is_some() && self.tag_of(id) == Tag::ChannelBearing
    }

    fn lapsed(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.live = false;
        self.epoch = None;
        self.our_side.behind = false;
        self.relight = None;
        self.hold_down.lapsed(now);
        self.absence_begins(now);
        self.refuse_contenders(CloseReason::Lapse, out);
        let unknown = self.tag_of_unknown();
        for (_, peer) in self.peers.iter_mut() {
            if peer.said.unwrap_or(unknown) == Tag::ChannelBearing
                && let Some(incumbent) = &mut peer.incumbent
            {
                incumbent.doomed = true;
            }
        }
        let waiting: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.wait != Wait::None)
            .map(|(id, _)| id)
            .collect();
        for id in waiting {
            if self.speaks_for_node(id) {
                continue;
            }
            // What it waited for as the node it waits for under a persona too.
            if let Some(Wait::Backoff { until, .. }) = self.peers.get(&id).map(|peer| peer.wait) {
                self.persona_retry(now, id, until.since(now));
            }
            self.hold(id, out);
        }
        self.tell_deadlines(out);
    }

    fn dial_failed(&mut self, now: Moment, link: LinkId, failure: Failure, out: &mut Vec<Output>) {
        if self.is_persona(link) {
            return self.persona_over(now, link, Some(failure), out);
        }
        if self.is_incumbent(link) {
            // It was let in and ended before it could know.
            let reason = if failure == Failure::SignerAway {
                CloseReason::Lapse
            } else {
                CloseReason::Internal
            };
            return self.ended(now, link, reason, out);
        }
        let Some(id) = self.disown(link) else {
            return;
        };
        self.dial_is_over(id, link);
        self.drop_contender(id, link);
        let retry_in = match failure {
            Failure::Unreachable => self.back_off(now, id, true),
            Failure::Handshake => self.back_off(now, id, false),
            Failure::WrongKey => self.look_elsewhere(now, id),
            Failure::Ours => {
                self.our_side.failures = self.our_side.failures.saturating_add(1);
                self.try_soon(now, id)
            }
            Failure::NoWay => self.find_a_way(now, id),
            Failure::SignerAway | Failure::Duplicate => None,
        };
        out.push(Output::Failed {
            peer: id,
            link,
            retry_in,
        });
        // A dial of an earlier session may end only now: the one that follows it counts.
        if !matches!(failure, Failure::Duplicate | Failure::SignerAway) {
            self.relight_failed(id);
        }
        self.wait_for_no_unreachable(id);
        self.pursue(id, out);
        self.forget_if_idle(id);
    }

    fn is_incumbent(&self, link: LinkId) -> bool {
        let peer = self.owner(link).and_then(|id| self.peers.get(&id));
        peer.and_then(|peer| peer.incumbent)
            .is_some_and(|incumbent| incumbent.id == link)
    }

    fn up(&mut self, now: Moment, link: LinkId, out: &mut Vec<Output>) {
        if self.is_persona(link) {
            return self.persona_up(now, link);
        }
        let Some(id) = self.owner(link) else {
            return;
        };
        self.dial_is_over(id, link);
        self.retire_persona(now, id);
        let mut doomed = false;
        if let Some(incumbent) = self
            .peers
            .get_mut(&id)
            .and_then(|peer| peer.incumbent.as_mut())
            && incumbent.id == link
        {
            incumbent.up_since = Some(now);
            doomed = incumbent.doomed;
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.strain = Backoff::default();
            peer.wrong = 0;
            peer.seen = Some(Seen::at(now));
        }
        self.set_wait(id, Wait::None);
        if let Some(relight) = self.relight.as_mut().filter(|_| !doomed) {
            relight.came_up(now, id);
        }
        // A link that has just come up is alive: whoever contends for its place need not wait for a probe.
        self.alive(link, out);
    }

    fn ended(&mut self, now: Moment, link: LinkId, reason: CloseReason, out: &mut Vec<Output>) {
        if let Some(peer) = self.owner(link).and_then(|id| self.peers.get_mut(&id)) {
            peer.suspect |= reason == CloseReason::Mistag;
        }
        if self.is_persona(link) {
            let failure = self.persona_failure(now, link, reason);
            return self.persona_over(now, link, failure, out);
        }
        let Some(id) = self.disown(link) else {
            return;
        };
        self.guests.leave(link);
        self.dial_is_over(id, link);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(incumbent) = peer.incumbent.take_if(|incumbent| incumbent.id == link) else {
            return;
        };
        let lived = incumbent
            .up_since
            .map_or(Duration::ZERO, |since| now.since(since));
        if lived >= limits::STABLE_AFTER {
            peer.backoff = Backoff::default();
        }
        if let Some(persona) = &mut peer.persona {
            persona.retire_at = None;
        }
        peer.lost = incumbent.up_since.is_some() && !self.live;
        if incumbent.up_since.is_some() {
            peer.seen = Some(Seen::at(now));
        }
        let successor = peer.contender.take();
        self.reschedule(id);
        if let Some(contender) = successor {
            // The old link's end has been reported, so its successor may speak, unless it is barred by now.
            self.admit(now, id, contender.link, contender.direction, out);
            self.reschedule(id);
            self.pursue(id, out);
            return;
        }
        let blames_peer = !reason.is_ours();
        let retry_in = match reason {
            CloseReason::Lapse | CloseReason::SignerAway => None,
            _ if blames_peer => self.back_off(now, id, has_left(lived, reason)),
            _ => self.try_soon(now, id),
        };
        if incumbent.up_since.is_none() {
            out.push(Output::Failed {
                peer: id,
                link,
                retry_in,
            });
            if blames_peer && !incumbent.doomed {
                self.relight_failed(id);
            }
        }
        self.pursue(id, out);
        self.forget_if_idle(id);
    }

    fn withdrawn(&mut self, now: Moment, link: LinkId, out: &mut Vec<Output>) {
        if self.is_incumbent(link) {
            return self.ended(now, link, CloseReason::Internal, out);
        }
        if let Some(id) = self.disown(link) {
            self.drop_contender(id, link);
            self.forget_if_idle(id);
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.hold_down.end_if_over(now) {
            self.release(now, out);
        }
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let due = self.timers.pop_first();
            let Some(id) = due.and_then(|(_, place)| self.peers.at(place)) else {
                continue;
            };
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.timer = None;
            if peer.wait.is_over(now) {
                self.set_wait(id, Wait::None);
            }
            self.probe_is_over(now, id, out);
            self.persona_is_due(now, id, out);
            self.pursue(id, out);
            self.reschedule(id);
        }
    }

    fn drain(&mut self, out: &mut Vec<Output>) {
        self.draining = true;
        self.relight = None;
        self.hold_down.cancel();
        self.floor.stop();
        self.refuse_contenders(CloseReason::Draining, out);
        let ids = self.peers.ids();
        for id in ids {
            self.set_wait(id, Wait::None);
            let reason = CloseReason::Draining;
            let links = self.peers.get(&id).into_iter().flat_map(Peer::links);
            out.extend(links.map(|link| Output::Close { link, reason }));
            self.reschedule(id);
        }
    }

    /// Nobody waits for the place of an incumbent any more: what waits was authenticated under a session that is over, or is not
    /// wanted. A contender that were left in place would be let in after a quick return, dead already.
    fn refuse_contenders(&mut self, reason: CloseReason, out: &mut Vec<Output>) {
        let contended: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.contender.is_some())
            .map(|(id, _)| id)
            .collect();
        for id in contended {
            if let Some(peer) = self.peers.get_mut(&id)
                && let Some(contender) = peer.contender.take()
            {
                let link = contender.link;
                out.push(Output::Refuse { link, reason });
            }
            self.reschedule(id);
        }
    }

    fn drop_contender(&mut self, id: NodeId, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.contender.take_if(|contender| contender.link == link);
            self.reschedule(id);
        }
    }

    /// Strangers are remembered only while they are connected.
    pub(super) fn forget_if_idle(&mut self, id: NodeId) {
        if self.peers.get(&id).is_some_and(Peer::is_forgettable) {
            self.set_wait(id, Wait::None);
            // Its place may soon be another's.
            self.unschedule(id);
            self.leave_floor(id);
            self.peers.remove(&id);
        }
    }

    fn relight_failed(&mut self, id: NodeId) {
        if let Some(relight) = &mut self.relight {
            relight.failed(id);
        }
    }

    fn finish_relight(&mut self, out: &mut Vec<Output>) {
        if let Some(relight) = self.relight.take_if(|relight| relight.is_over()) {
            out.extend(relight.outcome());
        }
    }

    pub(super) fn make_incumbent(&mut self, id: NodeId, incumbent: Incumbent) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.incumbent = Some(incumbent);
        }
    }
}
