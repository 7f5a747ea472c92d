//! How many links strangers may have, and which of them goes for a newcomer: a part of [`SupervisorMachine`].
//!
//! A guest is a peer that has dialled us, that the node does not want, and that has no channel with it. Whoever the node wants, or has
//! or may have a channel with, is protected: it is neither counted here nor closed. So is whoever dials from a network that the operator
//! protects.
//!
//! ```text
//!  newcomer ──▶ its address has its share? ──▶ the longest idle of that address goes
//!                 │ no
//!                 ▼
//!               its network has its share? ──▶ the longest idle of that network goes
//!                 │ no
//!                 ▼
//!               all guests' places taken?  ──▶ the longest idle of all goes
//! ```
//!
//! Idle is whoever sends nothing but pings and pongs.
//!
//! **Before the node has declared its channel peers**, a peer of whom nothing is known may be one: neither the node nor the book has
//! spoken of it, and the node has sent it no channel message. It is not closed as a stranger is until it has had
//! [`UNKNOWN_FOR`](limits::UNKNOWN_FOR) to show that it is one, whatever it says meanwhile. Those within that time have shares of their own, in
//! which the one that came first goes; beyond it they are strangers. Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::{Output, SupervisorMachine};
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, LinkId, Tag};
use crate::network::{IpNetwork, Party, Subnet};
use crate::node_id::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The links that were let in from peers who dialled us.
#[derive(Debug, Clone, Default)]
pub(super) struct Guests {
    links: BTreeMap<LinkId, Guest>,
    /// Those of them whose number is bounded. They are few, however many links there are.
    counted: BTreeSet<LinkId>,
    /// Whoever dials from there costs nobody a link and loses none.
    protected: Arc<[IpNetwork]>,
}

#[derive(Debug, Clone, Copy)]
struct Guest {
    peer: NodeId,
    party: Party,
    subnet: Subnet,
    since: Moment,
    /// When it was let in, or last said something.
    active: Moment,
    /// It has been told to go.
    leaving: bool,
    protected: bool,
}

impl Guests {
    fn protects(&self, ip: IpAddr) -> bool {
        self.protected.iter().any(|network| network.contains(ip))
    }

    pub(super) fn leave(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.counted.remove(&link);
    }

    /// A link has been of use at that moment.
    pub(super) fn active(&mut self, link: LinkId, at: Moment) {
        if let Some(guest) = self.links.get_mut(&link) {
            guest.active = guest.active.max(at);
        }
    }
}

impl SupervisorMachine {
    /// Strangers from these networks are neither counted nor closed.
    #[must_use]
    pub fn protecting(mut self, networks: Arc<[IpNetwork]>) -> Self {
        self.guests.protected = networks;
        self
    }

    /// The links whose activity decides who goes, if a newcomer would meet a bound. Whoever drives the machine says, before it hands in
    /// a newcomer that [counts](Self::is_counted), when each of them was last active.
    pub fn guests(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.guests.counted.iter().copied()
    }

    /// What the node says of a peer may have its link counted, or counted no more.
    pub(super) fn review_guest(&mut self, id: NodeId) {
        let incumbent = self.peers.get(&id).and_then(|peer| peer.incumbent);
        let Some(link) = incumbent.map(|incumbent| incumbent.id) else {
            return;
        };
        if self.guests.links.contains_key(&link) && self.is_counted(id) {
            self.guests.counted.insert(link);
        } else {
            self.guests.counted.remove(&link);
        }
    }

    /// Whether the links of a peer that dials us are bounded: the node does not want it, and nobody has said that it has a channel.
    pub fn is_counted(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_none_or(|peer| {
            let has_channel = peer.said == Some(Tag::ChannelBearing);
            !peer.wanted && !has_channel
        })
    }

    /// Whether a guest may yet turn out to have a channel with the node.
    fn may_have_channel(&self, now: Moment, guest: &Guest) -> bool {
        self.tag_of(guest.peer) == Tag::ChannelBearing
            && now.since(guest.since) < limits::UNKNOWN_FOR
    }

    /// The stranger that a link was let in from, and its address.
    pub(super) fn stranger_on(&self, link: LinkId) -> Option<(NodeId, IpAddr)> {
        let guest = self.guests.links.get(&link)?;
        self.is_stranger(guest.peer)
            .then(|| (guest.peer, guest.party.ip()))
    }

    /// Nothing speaks for a peer but that it has dialled us.
    pub(super) fn is_stranger(&self, id: NodeId) -> bool {
        let wanted = self.peers.get(&id).is_some_and(|peer| peer.wanted);
        !wanted && self.tag_of(id) == Tag::GossipOnly
    }

    /// Whether there is room for one more link of a peer that dialled us. A peer that the node wants always finds it: the node knows
    /// how many it wants.
    pub(super) fn has_room_for(&self, id: NodeId) -> bool {
        let wanted = self.peers.get(&id).is_some_and(|peer| peer.wanted);
        wanted || self.owned() < limits::LINKS_MAX
    }

    /// Notes a link that is let in from a peer who dialled us, and closes those that must go for it.
    pub(super) fn receive_guest(
        &mut self,
        now: Moment,
        link: LinkId,
        peer: NodeId,
        ip: IpAddr,
        out: &mut Vec<Output>,
    ) {
        let guest = Guest {
            peer,
            party: Party::of(ip),
            subnet: Subnet::of(ip),
            since: now,
            active: now,
            leaving: false,
            protected: self.guests.protects(ip),
        };
        if self.is_counted(peer) {
            if !guest.protected {
                self.make_room(now, &guest, out);
            }
            self.guests.counted.insert(link);
        }
        self.guests.links.insert(link, guest);
    }

    fn make_room(&mut self, now: Moment, newcomer: &Guest, out: &mut Vec<Output>) {
        let counted = self.guests.counted.iter();
        let places =
            counted.filter_map(|link| Some(Place::new(*link, self.guests.links.get(link)?)));
        let (mut unknown, mut strangers): (Vec<Place>, Vec<Place>) = places
            .filter(|place| {
                let may_go = !place.guest.leaving && !place.guest.protected;
                may_go && self.is_counted(place.guest.peer)
            })
            .partition(|place| self.may_have_channel(now, &place.guest));
        unknown.sort_unstable_by_key(|place| (place.guest.since, place.link));
        strangers.sort_unstable_by_key(|place| (place.guest.active, place.link));
        let mut gone = Vec::new();
        if self.may_have_channel(now, newcomer) {
            Share::UNKNOWN.thin(&mut unknown, newcomer, &mut gone);
            // Those whose time is over have become strangers without a newcomer among these.
            Share::cut(&mut strangers, limits::STRANGERS_MAX, |_| true, &mut gone);
        } else {
            Share::STRANGERS.thin(&mut strangers, newcomer, &mut gone);
        }
        for link in gone {
            if let Some(guest) = self.guests.links.get_mut(&link) {
                guest.leaving = true;
            }
            out.push(Output::Close {
                link,
                reason: CloseReason::Evicted,
            });
        }
    }
}

/// A link that may go, as it stands.
struct Place {
    link: LinkId,
    guest: Guest,
}

impl Place {
    fn new(link: LinkId, guest: &Guest) -> Self {
        Self {
            link,
            guest: *guest,
        }
    }
}

/// How many links there may be of some sort.
struct Share {
    all: usize,
    per_address: usize,
    per_subnet: usize,
}

impl Share {
    const STRANGERS: Self = Self {
        all: limits::STRANGERS_MAX,
        per_address: limits::STRANGERS_PER_ADDRESS,
        per_subnet: limits::STRANGERS_PER_SUBNET,
    };
    const UNKNOWN: Self = Self {
        all: limits::UNKNOWN_MAX,
        per_address: limits::UNKNOWN_PER_ADDRESS,
        per_subnet: limits::UNKNOWN_PER_SUBNET,
    };

    /// Makes room for a newcomer: takes the first of `places` out that must go.
    fn thin(&self, places: &mut Vec<Place>, newcomer: &Guest, gone: &mut Vec<LinkId>) {
        let before = |share: usize| share.saturating_sub(1);
        if !newcomer.party.is_many() {
            let same = |guest: &Guest| guest.party == newcomer.party;
            Self::cut(places, before(self.per_address), same, gone);
            let near = |guest: &Guest| guest.subnet == newcomer.subnet;
            Self::cut(places, before(self.per_subnet), near, gone);
        }
        Self::cut(places, before(self.all), |_| true, gone);
    }

    /// Takes the first of some places out until no more than `left` of them stay.
    fn cut(
        places: &mut Vec<Place>,
        left: usize,
        of: impl Fn(&Guest) -> bool,
        gone: &mut Vec<LinkId>,
    ) {
        let there = places.iter().filter(|place| of(&place.guest)).count();
        let mut surplus = there.saturating_sub(left);
        places.retain(|place| {
            let goes = surplus > 0 && of(&place.guest);
            if goes {
                surplus -= 1;
                gone.push(place.link);
            }
            !goes
        });
    }
}
