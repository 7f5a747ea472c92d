//! What the supervisor decides: who is dialled, when, in which order; who is admitted; who is closed.
//!
//! ```text
//!              want                 slot free              up
//!   unknown ─────────▶ queued ───────────────▶ dialling ────────▶ linked
//!                       ▲  ▲                      │ failed           │ ended
//!        signer returns │  │ the wait is over     ▼                  │
//!                      held ◀───── lapse ───── backoff ◀─────────────┘
//! ```
//!
//! Pure: inputs, `now` and a seed in; outputs and the next deadline out. It never reads a clock, opens a socket or waits. A bug in
//! it replays from a list of inputs.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::roster::{Backoff, DialKey, Incumbent, Peer, Wait};
use crate::book::PeerRecord;
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, Direction, LinkId, Tag};
use crate::node_id::NodeId;
use crate::signer::Epoch;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

pub use super::roster::{PeerState, Urgency};

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The node wants a link with this peer kept up. What it does not say stays as it was.
    Want {
        /// Who.
        peer: NodeId,
        /// Where; tried in this order.
        addresses: Vec<SocketAddr>,
        /// What the node says of it.
        tag: Option<Tag>,
        /// How much it matters among its like.
        weight: Option<u32>,
    },
    /// The node wants nothing of this peer any more.
    Unwant(NodeId),
    /// The node says what a peer is.
    Tag(NodeId, Tag),
    /// These are all the peers that the node has channels with.
    Declare(Vec<NodeId>),
    /// How urgent a channel peer is.
    Urgency(NodeId, Urgency),
    /// A signer session began.
    Attached(Epoch),
    /// The signer session ended.
    Lapsed,
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
        /// Where the peer is.
        address: SocketAddr,
    },
    /// A link is up.
    Up(LinkId),
    /// A link has shown life after a probe.
    Alive(LinkId),
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
    /// The signer went away: the peer is not to blame.
    SignerAway,
    /// The supervisor turned it away, because another link is there already.
    Duplicate,
    /// We or the signer failed, and the signer is still there: the peer is not to blame, and is tried again soon.
    Ours,
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
        address: SocketAddr,
        /// Under a lease from the first byte, if it bears a channel.
        tag: Tag,
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
    /// A dial did not lead to a link; the next is due in `retry_in`, or when the signer returns.
    Failed {
        /// Whom.
        peer: NodeId,
        /// The failed link.
        link: LinkId,
        /// From now; `None` when no time is set.
        retry_in: Option<Duration>,
    },
    /// A wanted peer cannot be dialled now, because no signer is there.
    Held(NodeId),
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

/// The state of all peers.
pub struct SupervisorMachine {
    own_key: NodeId,
    random: fastrand::Rng,
    live: bool,
    draining: bool,
    /// The node has said, in this process, which peers it has channels with.
    declared: bool,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Whose each link is: admitted ones, contenders, and dials under way.
    pub(super) owners: HashMap<LinkId, NodeId>,
    next_link: u64,
    /// Peers that wait for a place to dial, the most urgent first.
    queue: BTreeSet<(DialKey, NodeId)>,
    dialing: usize,
    timers: BTreeSet<(Moment, NodeId)>,
    relight: Option<Relight>,
}

/// A return in progress.
struct Relight {
    epoch: Epoch,
    since: Moment,
    waiting: BTreeSet<NodeId>,
    /// When the last of them came up.
    last_up: Option<Moment>,
    up: usize,
    failed: usize,
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
            peers: BTreeMap::new(),
            owners: HashMap::new(),
            next_link: 0,
            queue: BTreeSet::new(),
            dialing: 0,
            timers: BTreeSet::new(),
            relight: None,
        }
    }

    /// Outbound links have even numbers; the listener numbers inbound ones oddly.
    fn next_link(&mut self) -> LinkId {
        self.next_link = self.next_link.wrapping_add(2);
        LinkId(self.next_link)
    }

    /// When [`Input::Tick`] is due next.
    pub fn deadline(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What a peer is: what the node said of it, else channel-bearing until the node has declared its channel peers (fail
    /// safe), else gossip-only.
    pub fn tag_of(&self, peer: NodeId) -> Tag {
        let unknown = if self.declared { Tag::GossipOnly } else { Tag::ChannelBearing };
        self.peers.get(&peer).and_then(|known| known.said).unwrap_or(unknown)
    }

    /// Whether no further peer is taken in, save channel peers that the node declares.
    pub fn is_full(&self) -> bool {
        self.peers.len() >= limits::PEERS_MAX
    }

    /// Every peer, in the order of their keys.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    /// One peer.
    pub fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// Whose a link is.
    pub fn owner(&self, link: LinkId) -> Option<NodeId> {
        self.owners.get(&link).copied()
    }

    /// Takes one input and appends what is to be done to `out`.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Want { peer, addresses, tag, weight } => self.want(peer, addresses, tag, weight, out),
            Input::Unwant(peer) => self.unwant(peer, out),
            Input::Tag(peer, tag) => self.say(peer, tag, out),
            Input::Declare(peers) => self.declare(&peers, out),
            Input::Urgency(peer, urgency) => self.set_urgency(peer, urgency),
            Input::Attached(epoch) => self.attached(now, epoch, out),
            Input::Lapsed => self.lapsed(out),
            Input::DialFailed { link, failure } => self.dial_failed(now, link, failure, out),
            Input::Authenticated { link, peer, direction, address } => {
                self.authenticated(now, link, peer, direction, address, out);
            }
            Input::Up(link) => self.up(now, link, out),
            Input::Alive(link) => self.alive(link, out),
            Input::Ended { link, reason } => self.ended(now, link, reason, out),
            Input::Withdrawn(link) => self.withdrawn(now, link, out),
            Input::Tick => self.tick(now, out),
            Input::Drain => self.drain(out),
        }
        self.fill_places(out);
        self.finish_relight(out);
    }

    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(super) fn own_key(&self) -> NodeId {
        self.own_key
    }

    fn want(
        &mut self,
        id: NodeId,
        mut addresses: Vec<SocketAddr>,
        tag: Option<Tag>,
        weight: Option<u32>,
        out: &mut Vec<Output>,
    ) {
        // A dial of ourselves could only be refused, again and again.
        if id == self.own_key || !self.peers.contains_key(&id) && self.is_full() {
            return;
        }
        let peer = self.peers.entry(id).or_default();
        peer.wanted = true;
        if !addresses.is_empty() {
            addresses.truncate(limits::ADDRESSES_MAX);
            peer.addresses = addresses;
            peer.next_address = 0;
        }
        if let Some(weight) = weight {
            peer.weight = weight;
        }
        out.push(Output::Save(peer.record(id)));
        if let Some(tag) = tag {
            self.say(id, tag, out);
        }
        // Asked for by name: an earlier failure is no reason to wait. Who is held already is said to be so again, for whoever asks
        // now must hear at once that no signer is there (P5).
        if self.peers.get(&id).is_some_and(|peer| matches!(peer.wait, Wait::Backoff { .. } | Wait::Held)) {
            self.set_wait(id, Wait::None);
        }
        self.pursue(id, out);
    }

    fn unwant(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.wanted = false;
        peer.said = None;
        if let Some(contender) = peer.contender.take() {
            out.push(Output::Refuse { link: contender.link, reason: CloseReason::Removed });
        }
        let links = [peer.incumbent.map(|link| link.id), peer.dial];
        for link in links.into_iter().flatten() {
            out.push(Output::Close { link, reason: CloseReason::Removed });
        }
        peer.urgency = Urgency::default();
        self.set_wait(id, Wait::None);
        if let Some(relight) = &mut self.relight {
            relight.waiting.remove(&id);
        }
        out.push(Output::Forget(id));
        self.forget_if_idle(id);
    }

    /// The node says what a peer is.
    fn say(&mut self, id: NodeId, tag: Tag, out: &mut Vec<Output>) {
        // A full table must not make a channel peer look like a stranger: those the node vouches for have no bound but the node's.
        if tag == Tag::GossipOnly && !self.peers.contains_key(&id) && self.is_full() {
            return;
        }
        let before = self.tag_of(id);
        let peer = self.peers.entry(id).or_default();
        if peer.said.replace(tag) != Some(tag) {
            out.push(Output::Save(peer.record(id)));
        }
        if before != tag {
            self.retagged(id, tag, out);
        }
    }

    fn retagged(&mut self, id: NodeId, tag: Tag, out: &mut Vec<Output>) {
        out.push(Output::Tagged { peer: id, tag });
        if let Some(link) = self.peers.get(&id).and_then(|peer| peer.incumbent) {
            out.push(Output::Retag { link: link.id, tag });
        }
        self.requeue(id);
    }

    /// The list is the whole truth: whoever is not in it has no channel with the node.
    fn declare(&mut self, channel_peers: &[NodeId], out: &mut Vec<Output>) {
        let before: Vec<(NodeId, Tag)> = self.peers.keys().map(|id| (*id, self.tag_of(*id))).collect();
        let listed: BTreeSet<NodeId> = channel_peers.iter().copied().take(limits::PEERS_MAX).collect();
        for id in &listed {
            self.say(*id, Tag::ChannelBearing, out);
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
                self.retagged(id, tag_now, out);
            }
        }
    }

    fn set_urgency(&mut self, id: NodeId, urgency: Urgency) {
        if !self.peers.contains_key(&id) && self.is_full() {
            return;
        }
        self.peers.entry(id).or_default().urgency = urgency;
        self.requeue(id);
        self.forget_if_idle(id);
    }

    fn attached(&mut self, now: Moment, epoch: Epoch, out: &mut Vec<Output>) {
        self.live = true;
        let ids: Vec<NodeId> = self.peers.keys().copied().collect();
        let mut waiting = BTreeSet::new();
        for id in ids {
            let tag = self.tag_of(id);
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.backoff = Backoff::default();
            let missing = peer.will_be_missing();
            let queued = matches!(peer.wait, Wait::Queued(_));
            if !queued {
                self.set_wait(id, Wait::None);
            }
            if missing && tag == Tag::ChannelBearing {
                waiting.insert(id);
            }
            self.pursue(id, out);
        }
        self.relight = Some(Relight { epoch, since: now, waiting, last_up: None, up: 0, failed: 0 });
    }

    fn lapsed(&mut self, out: &mut Vec<Output>) {
        self.live = false;
        self.relight = None;
        let channel_peers: Vec<NodeId> =
            self.peers.keys().copied().filter(|id| self.tag_of(*id) == Tag::ChannelBearing).collect();
        for id in channel_peers {
            if let Some(incumbent) = self.peers.get_mut(&id).and_then(|peer| peer.incumbent.as_mut()) {
                incumbent.doomed = true;
            }
        }
        let waiting: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.wait != Wait::None).map(|(id, _)| *id).collect();
        for id in waiting {
            self.hold(id, out);
        }
    }

    fn dial_failed(&mut self, now: Moment, link: LinkId, failure: Failure, out: &mut Vec<Output>) {
        if self.is_incumbent(link) {
            // It was let in and ended before it could know.
            let reason = if failure == Failure::SignerAway { CloseReason::Lapse } else { CloseReason::Internal };
            return self.ended(now, link, reason, out);
        }
        let Some(id) = self.owners.remove(&link) else {
            return;
        };
        self.dial_is_over(id, link);
        self.drop_contender(id, link);
        let retry_in = match failure {
            Failure::Unreachable | Failure::Handshake => self.back_off(now, id),
            Failure::Ours => self.try_soon(now, id),
            Failure::SignerAway | Failure::Duplicate => None,
        };
        out.push(Output::Failed { peer: id, link, retry_in });
        if !matches!(failure, Failure::Duplicate | Failure::SignerAway) {
            self.relight_failed(id);
        }
        self.pursue(id, out);
        self.forget_if_idle(id);
    }

    /// The next dial of a peer that we failed waits as after a first failure, and nothing is held against the peer.
    fn try_soon(&mut self, now: Moment, id: NodeId) -> Option<Duration> {
        let delay = Backoff::default().next(&mut self.random);
        if !self.live || self.draining || !self.peers.get(&id)?.is_missing() {
            return None;
        }
        self.set_wait(id, Wait::Backoff { until: now.after(delay) });
        Some(delay)
    }

    fn is_incumbent(&self, link: LinkId) -> bool {
        let peer = self.owner(link).and_then(|id| self.peers.get(&id));
        peer.and_then(|peer| peer.incumbent).is_some_and(|incumbent| incumbent.id == link)
    }

    /// The next dial of a peer that failed us waits, and goes to its next address. `None`: no dial is due by time.
    fn back_off(&mut self, now: Moment, id: NodeId) -> Option<Duration> {
        let live = self.live;
        let peer = self.peers.get_mut(&id)?;
        peer.next_address = peer.next_address.wrapping_add(1);
        let delay = peer.backoff.next(&mut self.random);
        if !live || self.draining || !peer.is_missing() {
            return None;
        }
        self.set_wait(id, Wait::Backoff { until: now.after(delay) });
        Some(delay)
    }

    fn up(&mut self, now: Moment, link: LinkId, out: &mut Vec<Output>) {
        let Some(id) = self.owner(link) else {
            return;
        };
        self.dial_is_over(id, link);
        if let Some(incumbent) = self.peers.get_mut(&id).and_then(|peer| peer.incumbent.as_mut())
            && incumbent.id == link
        {
            incumbent.up_since = Some(now);
        }
        self.set_wait(id, Wait::None);
        if let Some(relight) = &mut self.relight
            && relight.waiting.remove(&id)
        {
            relight.up += 1;
            relight.last_up = Some(now);
        }
        // A link that has just come up is alive: whoever contends for its place need not wait for a probe.
        self.alive(link, out);
    }

    fn ended(&mut self, now: Moment, link: LinkId, reason: CloseReason, out: &mut Vec<Output>) {
        let Some(id) = self.owners.remove(&link) else {
            return;
        };
        self.dial_is_over(id, link);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(incumbent) = peer.incumbent.take_if(|incumbent| incumbent.id == link) else {
            return;
        };
        let lived = incumbent.up_since.map_or(Duration::ZERO, |since| now.since(since));
        if lived >= limits::STABLE_AFTER {
            peer.backoff = Backoff::default();
        }
        if let Some(contender) = peer.contender.take() {
            // The old link's end has been reported, so its successor may speak.
            self.admit(id, contender.link, contender.direction, out);
            self.reschedule(id);
            return;
        }
        let blames_peer = !reason.is_ours();
        let retry_in = match reason {
            CloseReason::Lapse | CloseReason::SignerAway => None,
            _ if blames_peer => self.back_off(now, id),
            _ => self.try_soon(now, id),
        };
        if incumbent.up_since.is_none() {
            out.push(Output::Failed { peer: id, link, retry_in });
            if blames_peer {
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
        if let Some(id) = self.owners.remove(&link) {
            self.drop_contender(id, link);
            self.forget_if_idle(id);
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Output>) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.timer = None;
            if peer.wait.is_over(now) {
                self.set_wait(id, Wait::None);
            }
            self.probe_is_over(now, id, out);
            self.pursue(id, out);
            self.reschedule(id);
        }
    }

    fn drain(&mut self, out: &mut Vec<Output>) {
        self.draining = true;
        self.relight = None;
        let ids: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in ids {
            self.set_wait(id, Wait::None);
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if let Some(contender) = peer.contender.take() {
                out.push(Output::Refuse { link: contender.link, reason: CloseReason::Draining });
            }
            for link in [peer.incumbent.map(|link| link.id), peer.dial].into_iter().flatten() {
                out.push(Output::Close { link, reason: CloseReason::Draining });
            }
            self.reschedule(id);
        }
    }

    /// Sees to it that a wanted peer without a link is on its way to one.
    fn pursue(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if self.draining || !peer.is_missing() || peer.wait != Wait::None {
            return;
        }
        if self.live {
            let key = DialKey::of(self.tag_of(id), peer);
            self.set_wait(id, Wait::Queued(key));
        } else {
            self.hold(id, out);
        }
    }

    /// No signer is there: the dial waits for its return.
    fn hold(&mut self, id: NodeId, out: &mut Vec<Output>) {
        self.set_wait(id, Wait::Held);
        out.push(Output::Held(id));
    }

    /// Dials the most urgent while there are places.
    fn fill_places(&mut self, out: &mut Vec<Output>) {
        while self.dialing < limits::DIALS_IN_FLIGHT {
            let Some((_, id)) = self.queue.first().copied() else {
                return;
            };
            self.set_wait(id, Wait::None);
            let tag = self.tag_of(id);
            let link = self.next_link();
            let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_missing()) else {
                continue;
            };
            let Some(address) = peer.address() else {
                continue;
            };
            peer.dial = Some(link);
            self.owners.insert(link, id);
            self.dialing += 1;
            out.push(Output::Dial { link, peer: id, address, tag });
        }
    }

    fn dial_is_over(&mut self, id: NodeId, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.dial.take_if(|dial| *dial == link).is_some()
        {
            self.dialing = self.dialing.saturating_sub(1);
        }
    }

    fn drop_contender(&mut self, id: NodeId, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.contender.take_if(|contender| contender.link == link);
            self.reschedule(id);
        }
    }

    /// Changes what a peer waits for, and keeps the queue and the timers in step.
    fn set_wait(&mut self, id: NodeId, wait: Wait) {
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
    fn requeue(&mut self, id: NodeId) {
        if let Some(peer) = self.peers.get(&id)
            && let Wait::Queued(_) = peer.wait
        {
            let key = DialKey::of(self.tag_of(id), peer);
            self.set_wait(id, Wait::Queued(key));
        }
    }

    pub(super) fn reschedule(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let due = peer.due();
        if due == peer.timer {
            return;
        }
        if let Some(old) = peer.timer.take() {
            self.timers.remove(&(old, id));
        }
        if let Some(due) = due {
            self.timers.insert((due, id));
        }
        peer.timer = due;
    }

    /// Strangers are remembered only while they are connected.
    fn forget_if_idle(&mut self, id: NodeId) {
        if self.peers.get(&id).is_some_and(Peer::is_forgettable) {
            self.set_wait(id, Wait::None);
            self.peers.remove(&id);
        }
    }

    fn relight_failed(&mut self, id: NodeId) {
        if let Some(relight) = &mut self.relight
            && relight.waiting.remove(&id)
        {
            relight.failed += 1;
        }
    }

    fn finish_relight(&mut self, out: &mut Vec<Output>) {
        if let Some(relight) = self.relight.take_if(|relight| relight.waiting.is_empty()) {
            let Relight { epoch, since, last_up, up, failed, .. } = relight;
            if up + failed > 0 {
                out.push(Output::Relit { epoch, took: last_up.map(|at| at.since(since)), up, failed });
            }
        }
    }

    pub(super) fn make_incumbent(&mut self, id: NodeId, incumbent: Incumbent) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.incumbent = Some(incumbent);
        }
    }
}
