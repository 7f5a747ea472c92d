//! The gossip floor: the part of [`SupervisorMachine`] that dials gossip peers under a persona while no signer is there.
//!
//! ```text
//!            too few gossip links, no signer         up
//!   bench ──────────────────────────────▶ dialling ──────▶ linked ──┐ the node's own link with the peer
//!     ▲                                      │ failed        │ ended │ has been up for a while
//!     └───────── the wait is over ───────────┴───────────────┘       ▼
//!                                                                  closed
//! ```
//!
//! A persona is a throwaway key, named here by a number: outbound, for gossip only, never with a channel peer, never promoted. A
//! persona's link stands beside the node's own link with the same peer, and goes some time after that is up (make before break).
//! Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::{Failure, Input, Output, Policy, SupervisorMachine};
use super::roster::{Peer, PersonaLink};
use super::seen::Seen;
use crate::address::{KnownAddress, PeerAddress};
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, LinkId, Tag};
use crate::node_id::NodeId;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// What is kept for the floor, over all peers.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "choices, and facts that do not depend on one another"
)]
pub(super) struct Floor {
    /// Gossip links that there shall be while no signer is there.
    wanted: usize,
    /// Whether personas may be used at all.
    personas: bool,
    /// Whether channel peers may meet one.
    channel_peers: bool,
    /// Whether they dial through a proxy, wherever it goes.
    by_proxy: bool,
    /// Peers that may be dialled under a persona, the best first.
    pub(super) bench: BTreeSet<(BenchKey, NodeId)>,
    /// Peers that wait because they were not there, and when each may be looked for before that.
    pub(super) gone: BTreeSet<(Moment, NodeId)>,
    /// When one of them was last looked for.
    pub(super) sought_at: Option<Moment>,
    /// The networks that gossip comes from, or will soon, and from how many peers.
    networks: HashMap<Network, usize>,
    /// Peers with a live gossip link.
    up: usize,
    /// Of those, the ones that the node wants. Strangers have chosen us, and may have done so to be the only ones that we hear from: they
    /// do not keep others from being dialled.
    chosen: usize,
    /// Peers with a persona's dial that may still succeed soon.
    coming: usize,
    /// No persona dials before: a signer that is only late, or gone for an instant, finds nothing changed.
    starts_at: Option<Moment>,
    has_begun: bool,
    /// How many links are missing, as was last said.
    missing: usize,
    /// The persona of this absence or of an earlier one; 0 before the first.
    persona: u64,
    /// The next dial needs a new one.
    fresh: bool,
    minted: VecDeque<Moment>,
    returned_at: Option<Moment>,
}

/// The order of dialling under a persona: who was lost in this absence, who has failed least, who is not reached by way of Tor, who has
/// ever been met, the heaviest, then by lot, so that no two nodes and no two starts lean on the same few of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BenchKey {
    not_lost: bool,
    failures: u32,
    by_proxy: bool,
    never_seen: bool,
    weight: Reverse<u32>,
    lot: u32,
}

/// What one peer is to the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    bench: Option<BenchKey>,
    gone: Option<Moment>,
    up: bool,
    chosen: bool,
    coming: bool,
    /// Where it is, if it is up and chosen, or coming.
    network: Option<Network>,
}

/// What one party may well have all addresses of: a /16 or a /32. Names and onion services cost nothing, so those of a kind are one
/// network, as long as it is not known where a name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 2]),
    V6([u8; 4]),
    Named,
    Onion,
}

impl Network {
    fn of(address: &PeerAddress) -> Self {
        let ip = match address {
            PeerAddress::Ip(address) => address.ip(),
            PeerAddress::Dns { .. } => return Self::Named,
            PeerAddress::Onion { .. } => return Self::Onion,
        };
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(ip) => Self::V6(ip.octets().first_chunk().copied().unwrap_or_default()),
        }
    }
}

/// Whose standing an input may change.
pub(super) enum Subject {
    One(NodeId),
    All,
    Nobody,
}

impl Floor {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            wanted: policy.gossip_floor,
            // The node's own key does all that a persona could.
            personas: policy.personas && !policy.cached_identity,
            channel_peers: policy.channel_peers,
            by_proxy: policy.personas_by_proxy,
            bench: BTreeSet::new(),
            gone: BTreeSet::new(),
            sought_at: None,
            networks: HashMap::new(),
            up: 0,
            chosen: 0,
            coming: 0,
            starts_at: None,
            has_begun: false,
            missing: 0,
            persona: 0,
            fresh: false,
            minted: VecDeque::new(),
            returned_at: None,
        }
    }

    pub(super) fn meets_channel_peers(&self) -> bool {
        self.channel_peers
    }

    /// When it must be looked at though nothing else happens.
    pub(super) fn starts_at(&self) -> Option<Moment> {
        self.starts_at
    }

    /// Nothing is dialled any more.
    pub(super) fn stop(&mut self) {
        (self.personas, self.wanted, self.starts_at) = (false, 0, None);
    }

    /// Whether more gossip links are needed than there are or will be soon.
    pub(super) fn is_short(&self) -> bool {
        self.chosen.saturating_add(self.coming) < self.wanted
    }

    /// Whether the next dial of a peer under a persona has a circuit of Tor's to wait for.
    fn goes_by_proxy(&self, peer: &Peer) -> bool {
        let is_onion = |known: &KnownAddress| known.address.is_onion();
        self.by_proxy || peer.address().is_some_and(is_onion)
    }

    /// How long a persona's dial counts as one that comes up: by way of Tor longer, unless another peer could be dialled without.
    fn patience(&self, peer: &Peer) -> Duration {
        let mut best = self.bench.iter().take(limits::PERSONA_CHOICE);
        if self.goes_by_proxy(peer) && best.all(|(other, _)| other.by_proxy) {
            limits::PERSONA_OVERDUE_BY_PROXY
        } else {
            limits::PERSONA_OVERDUE
        }
    }

    fn is_of_use(&self) -> bool {
        self.wanted > 0 || self.personas
    }

    /// Whether the absence that the process started with is known of, or has passed.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// No signer is there from now on, or from the start.
    fn begins(&mut self, now: Moment) {
        self.has_begun = true;
        self.starts_at = self.is_of_use().then(|| now.after(limits::PERSONA_GRACE));
    }

    /// The persona to dial under. One an absence; the one before when the signer only flaps, or when there have been too many.
    fn persona(&mut self, now: Moment) -> u64 {
        let old = |at: &Moment| now.since(*at) >= limits::PERSONAS_PERIOD;
        while self.minted.front().is_some_and(old) {
            self.minted.pop_front();
        }
        let fresh = std::mem::take(&mut self.fresh) || self.persona == 0;
        if fresh && self.minted.len() < limits::PERSONAS_NEW {
            self.persona = self.persona.saturating_add(1);
            self.minted.push_back(now);
        }
        self.persona
    }

    /// A peer's standing has changed.
    fn changed(&mut self, id: NodeId, then: Standing, now: Standing) {
        if then == now {
            return;
        }
        if let Some(key) = then.bench {
            self.bench.remove(&(key, id));
        }
        if let Some(key) = now.bench {
            self.bench.insert((key, id));
        }
        if let Some(from) = then.gone {
            self.gone.remove(&(from, id));
        }
        if let Some(from) = now.gone {
            self.gone.insert((from, id));
        }
        if let Some(network) = then.network
            && let Some(peers) = self.networks.get_mut(&network)
        {
            *peers = peers.saturating_sub(1);
            if *peers == 0 {
                self.networks.remove(&network);
            }
        }
        if let Some(network) = now.network {
            *self.networks.entry(network).or_default() += 1;
        }
        self.up = self.up.saturating_sub(usize::from(then.up)) + usize::from(now.up);
        self.chosen =
            self.chosen.saturating_sub(usize::from(then.chosen)) + usize::from(now.chosen);
        self.coming =
            self.coming.saturating_sub(usize::from(then.coming)) + usize::from(now.coming);
    }
}

impl SupervisorMachine {
    pub(super) fn subject(&self, input: &Input) -> Subject {
        match input {
            Input::Want { peer, .. }
            | Input::Recall { peer, .. }
            | Input::Authenticated { peer, .. } => Subject::One(*peer),
            Input::Unwant(peer) | Input::Tag(peer, _) | Input::Urgency(peer, _) => {
                Subject::One(*peer)
            }
            Input::DialFailed { link, .. }
            | Input::Up(link)
            | Input::Alive(link)
            | Input::Ended { link, .. }
            | Input::Withdrawn(link) => self.owner(*link).map_or(Subject::Nobody, Subject::One),
            Input::Declare(_) | Input::Attached(_) | Input::Lapsed | Input::Drain => Subject::All,
            // A tick sees to those whose time has come.
            Input::Behind(_) | Input::Active(..) | Input::Height(_) | Input::Tick => {
                Subject::Nobody
            }
        }
    }

    pub(super) fn review_subject(&mut self, subject: &Subject) {
        match subject {
            Subject::One(id) => self.review(*id),
            Subject::All => {
                let ids = self.peers.ids();
                for id in ids {
                    self.review(id);
                }
            }
            Subject::Nobody => {}
        }
    }

    /// What the node says of a peer allows a persona to meet it.
    fn may_meet_persona(&self, id: NodeId) -> bool {
        self.floor.channel_peers || self.tag_of(id) == Tag::GossipOnly
    }

    /// Brings what the floor knows of a peer in step with the peer.
    pub(super) fn review(&mut self, id: NodeId) {
        let gossip = self.tag_of(id) == Tag::GossipOnly;
        let may_meet = self.may_meet_persona(id);
        let may_dial = may_meet && self.floor.personas && !self.draining && !self.live;
        let standing = self.peers.get(&id).map_or_else(Standing::default, |peer| {
            let own = peer
                .incumbent
                .filter(|incumbent| gossip && !incumbent.doomed);
            let own_up = own.is_some_and(|incumbent| incumbent.up_since.is_some());
            let persona = peer.persona.filter(|_| may_meet);
            let persona_up = persona.is_some_and(|link| link.up_since.is_some());
            let persona_coming =
                persona.is_some_and(|link| link.up_since.is_none() && link.overdue_at.is_some());
            let key = BenchKey {
                not_lost: !peer.lost,
                failures: peer.backoff.failures(),
                by_proxy: self.floor.goes_by_proxy(peer),
                never_seen: peer.seen.is_none(),
                weight: Reverse(peer.weight),
                lot: peer.lot,
            };
            let up = own_up || persona_up;
            let chosen = up && peer.wanted;
            let coming = !up && peer.wanted && (own.is_some() || persona_coming);
            let places = [&peer.reached, &peer.dialled, &peer.seen_at];
            let at = places.into_iter().flatten().next();
            Standing {
                bench: (may_dial && peer.may_be_met_as_persona()).then_some(key),
                gone: peer.may_be_sought_from().filter(|_| may_dial),
                up,
                chosen,
                coming,
                network: at.filter(|_| chosen || coming).map(Network::of),
            }
        });
        self.stand(id, standing);
        self.review_guest(id);
    }

    fn stand(&mut self, id: NodeId, standing: Standing) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let then = std::mem::replace(&mut peer.standing, standing);
            self.floor.changed(id, then, standing);
        }
    }

    /// A peer is about to be forgotten.
    pub(super) fn leave_floor(&mut self, id: NodeId) {
        self.stand(id, Standing::default());
    }

    /// Dials under a persona what is missing of the floor, and who was lost; says how many are missing when that has changed.
    pub(super) fn fill_floor(&mut self, now: Moment, out: &mut Vec<Output>) {
        if !self.live && !self.draining && !self.floor.has_begun {
            self.floor.begins(now);
        }
        self.floor.starts_at.take_if(|at| *at <= now);
        if self.floor.starts_at.is_some() {
            return;
        }
        if !self.live {
            self.dial_as_persona(now, out);
        }
        let away = !self.live && !self.draining;
        let missing = if away {
            self.floor.wanted.saturating_sub(self.floor.up)
        } else {
            0
        };
        if std::mem::replace(&mut self.floor.missing, missing) != missing {
            let wanted = self.floor.wanted;
            out.push(Output::FloorMissing { missing, wanted });
        }
    }

    fn dial_as_persona(&mut self, now: Moment, out: &mut Vec<Output>) {
        while self.dialing < limits::DIALS_IN_FLIGHT {
            let Some(id) = self.next_for_persona(now) else {
                return;
            };
            let persona = self.floor.persona(now);
            let link = self.next_link();
            let patience = self.peers.get(&id).map(|peer| self.floor.patience(peer));
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let Some(address) = peer.address().cloned() else {
                return;
            };
            peer.dialled = Some(address.address.clone());
            peer.reached = None;
            (peer.persona_until, peer.sought_from) = (None, None);
            peer.persona = Some(PersonaLink {
                id: link,
                up_since: None,
                overdue_at: patience.map(|patience| now.after(patience)),
                retire_at: None,
            });
            self.own(link, id);
            self.dialing += 1;
            self.reschedule(id);
            self.review(id);
            out.push(Output::Dial {
                link,
                peer: id,
                address,
                tag: Tag::GossipOnly,
                persona: Some(persona),
            });
        }
    }

    /// Whom a persona dials next, if anybody.
    fn next_for_persona(&mut self, now: Moment) -> Option<NodeId> {
        let Some((key, first)) = self.floor.bench.first().copied() else {
            return self.floor.seek(now);
        };
        if self.floor.is_short() {
            return Some(self.one_elsewhere().unwrap_or(first));
        }
        // Beyond the floor only those who were lost, wherever they are.
        (!key.not_lost).then_some(first)
    }

    /// The first of the bench's best in a network that no gossip comes from.
    fn one_elsewhere(&self) -> Option<NodeId> {
        let far = |id: &NodeId| {
            let address = self.peers.get(id).and_then(Peer::address);
            address.is_some_and(|known| {
                !self
                    .floor
                    .networks
                    .contains_key(&Network::of(&known.address))
            })
        };
        let best = self.floor.bench.iter().take(limits::PERSONA_CHOICE);
        best.map(|(_, id)| *id).find(far)
    }

    pub(super) fn is_persona(&self, link: LinkId) -> bool {
        let peer = self.owner(link).and_then(|id| self.peers.get(&id));
        peer.and_then(|peer| peer.persona)
            .is_some_and(|persona| persona.id == link)
    }

    /// A persona's handshake is done.
    pub(super) fn persona_authenticated(
        &mut self,
        link: LinkId,
        id: NodeId,
        out: &mut Vec<Output>,
    ) {
        let taken = self
            .peers
            .get(&id)
            .is_none_or(|peer| peer.incumbent.is_some());
        let unwanted = self.peers.get(&id).is_none_or(|peer| !peer.wanted);
        let reason = if self.draining {
            Some(CloseReason::Draining)
        } else if unwanted {
            Some(CloseReason::Removed)
        } else if self.live || !self.may_meet_persona(id) {
            // The node speaks for itself again, or the peer must never meet a persona.
            Some(CloseReason::Persona)
        } else {
            taken.then_some(CloseReason::Duplicate)
        };
        out.push(match reason {
            Some(reason) => Output::Refuse { link, reason },
            None => Output::Admit {
                link,
                tag: Tag::GossipOnly,
            },
        });
    }

    pub(super) fn persona_up(&mut self, now: Moment, link: LinkId) {
        let Some(id) = self.owner(link) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let own_is_up = peer
            .incumbent
            .is_some_and(|incumbent| incumbent.up_since.is_some());
        if let Some(persona) = &mut peer.persona {
            persona.up_since = Some(now);
            persona.overdue_at = None;
            if own_is_up {
                persona.retire_at = Some(now.after(limits::PERSONA_OVERLAP));
            }
        }
        (peer.lost, peer.wrong) = (false, 0);
        peer.seen = Some(Seen::at(now));
        self.dialing = self.dialing.saturating_sub(1);
        self.reschedule(id);
    }

    /// A persona's dial or link is over. `None` for the failure: it ended though nobody failed.
    pub(super) fn persona_over(
        &mut self,
        now: Moment,
        link: LinkId,
        failure: Option<Failure>,
        out: &mut Vec<Output>,
    ) {
        let Some(id) = self.disown(link) else {
            return;
        };
        let away = !self.live && !self.draining;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(persona) = peer.persona.take() else {
            return;
        };
        let was_up = persona.up_since;
        peer.persona_refused = failure == Some(Failure::Handshake);
        if was_up.is_some_and(|since| now.since(since) >= limits::STABLE_AFTER) {
            peer.backoff = super::roster::Backoff::default();
        }
        peer.lost |= was_up.is_some() && away;
        if was_up.is_some() {
            peer.seen = Some(Seen::at(now));
        }
        if was_up.is_none() {
            self.dialing = self.dialing.saturating_sub(1);
        }
        let retry_in = match failure {
            Some(Failure::WrongKey) => self.look_elsewhere(now, id),
            Some(Failure::Unreachable) => self.back_off(now, id, true),
            Some(Failure::Handshake) => self.back_off(now, id, false),
            Some(Failure::Ours) => self.try_soon(now, id),
            Some(Failure::NoWay) => self.find_a_way(now, id),
            Some(Failure::SignerAway | Failure::Duplicate) | None => None,
        };
        if was_up.is_none() {
            out.push(Output::Failed {
                peer: id,
                link,
                retry_in: retry_in.filter(|_| away),
            });
        }
        self.reschedule(id);
        self.forget_if_idle(id);
    }

    /// The node's own link with a peer is up: the persona's goes in a while, when the peer has had the time to answer on the new one.
    pub(super) fn retire_persona(&mut self, now: Moment, id: NodeId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some(persona) = &mut peer.persona
        {
            persona.retire_at = Some(now.after(limits::PERSONA_OVERLAP));
        }
    }

    /// What a peer's persona link waits for, as time passes.
    pub(super) fn persona_is_due(&mut self, now: Moment, id: NodeId, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            if peer.persona_until.take_if(|until| *until <= now).is_some() {
                peer.persona_refused = false;
            }
            if let Some(persona) = &mut peer.persona {
                persona.overdue_at.take_if(|at| *at <= now);
                if persona.retire_at.take_if(|at| *at <= now).is_some() {
                    out.push(Output::Close {
                        link: persona.id,
                        reason: CloseReason::Persona,
                    });
                }
            }
        }
        self.review(id);
    }

    /// The signer is back: dials under a persona are given up, links stay until the node's own have replaced them.
    pub(super) fn personas_give_way(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.floor.returned_at = Some(now);
        self.floor.starts_at = None;
        self.floor.has_begun = true;
        for (_, peer) in self.peers.iter_mut() {
            let waits = peer.persona_until.take();
            peer.persona_barred = waits
                .filter(|_| peer.persona_refused)
                .or(peer.persona_barred);
            peer.lost = false;
            if let Some(persona) = peer.persona.filter(|link| link.up_since.is_none()) {
                out.push(Output::Close {
                    link: persona.id,
                    reason: CloseReason::Persona,
                });
            }
        }
        self.reschedule_all();
    }

    /// The signer is gone: its absence gets a persona of its own, unless it only flaps.
    pub(super) fn absence_begins(&mut self, now: Moment) {
        let flaps = |at: Moment| now.since(at) < limits::STABLE_AFTER;
        self.floor.fresh |= !self.floor.returned_at.is_some_and(flaps);
        self.floor.begins(now);
        let barred = |(id, peer): (NodeId, &Peer)| peer.persona_barred.map(|until| (id, until));
        let barred: Vec<_> = self.peers.iter().filter_map(barred).collect();
        for (id, until) in barred {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.persona_barred = None;
                peer.persona_refused = until > now;
                peer.persona_until = peer.persona_until.max(Some(until).filter(|at| *at > now));
            }
            self.reschedule(id);
        }
    }

    /// Who must not meet a persona any more.
    pub(super) fn close_persona(&mut self, id: NodeId, out: &mut Vec<Output>) {
        if let Some(persona) = self.peers.get(&id).and_then(|peer| peer.persona) {
            out.push(Output::Close {
                link: persona.id,
                reason: CloseReason::Promoted,
            });
        }
    }

    fn reschedule_all(&mut self) {
        let ids = self.peers.ids();
        for id in ids {
            self.reschedule(id);
        }
    }

    /// How long a peer that failed waits for a persona: nothing when the signer is there.
    pub(super) fn persona_retry(
        &mut self,
        now: Moment,
        id: NodeId,
        delay: Duration,
    ) -> Option<Duration> {
        let dials = !self.live && self.floor.personas && self.may_meet_persona(id);
        if dials && let Some(peer) = self.peers.get_mut(&id) {
            peer.persona_until = peer.persona_until.max(Some(now.after(delay)));
            self.reschedule(id);
        }
        dials.then_some(delay)
    }
}
