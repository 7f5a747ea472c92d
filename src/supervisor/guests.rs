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
//! Idle is whoever sends nothing but pings and pongs. Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::{Output, SupervisorMachine};
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, Direction, LinkId, Tag};
use crate::network::{IpNetwork, Party, Subnet};
use crate::node_id::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The links that were let in from peers who dialled us.
#[derive(Debug, Default)]
pub(super) struct Guests {
    links: BTreeMap<LinkId, Guest>,
    /// Those of them that nothing speaks for. There are few of them, however many links there are.
    strangers: BTreeSet<LinkId>,
    /// Whoever dials from there costs nobody a link and loses none.
    protected: Arc<[IpNetwork]>,
}

#[derive(Debug, Clone, Copy)]
struct Guest {
    peer: NodeId,
    party: Party,
    subnet: Subnet,
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
        self.strangers.remove(&link);
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

    /// What the node says of a peer may make a stranger of it, or the contrary.
    pub(super) fn review_guest(&mut self, id: NodeId) {
        let incumbent = self.peers.get(&id).and_then(|peer| peer.incumbent);
        let Some(link) = incumbent.filter(|incumbent| incumbent.direction == Direction::Inbound)
        else {
            return;
        };
        if self.is_stranger(id) && self.guests.links.contains_key(&link.id) {
            self.guests.strangers.insert(link.id);
        } else {
            self.guests.strangers.remove(&link.id);
        }
    }

    /// The links whose activity decides who goes, if a newcomer would meet a bound. Whoever drives the machine says, before it hands in
    /// such a newcomer, when each of them was last active.
    pub fn guests(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.guests.strangers.iter().copied()
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
        wanted || self.owners.len() < limits::LINKS_MAX
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
            active: now,
            leaving: false,
            protected: self.guests.protects(ip),
        };
        if self.is_stranger(peer) {
            if !guest.protected {
                self.make_room(&guest, out);
            }
            self.guests.strangers.insert(link);
        }
        self.guests.links.insert(link, guest);
    }

    fn make_room(&mut self, newcomer: &Guest, out: &mut Vec<Output>) {
        let (of_party, of_subnet) = if newcomer.party.is_many() {
            (limits::STRANGERS_MAX, limits::STRANGERS_MAX)
        } else {
            (limits::STRANGERS_PER_ADDRESS, limits::STRANGERS_PER_SUBNET)
        };
        self.thin(of_party, |guest| guest.party == newcomer.party, out);
        self.thin(of_subnet, |guest| guest.subnet == newcomer.subnet, out);
        self.thin(limits::STRANGERS_MAX, |_| true, out);
    }

    /// Closes the longest idle of some strangers until fewer than `share` of them stay.
    fn thin(&mut self, share: usize, of: impl Fn(&Guest) -> bool, out: &mut Vec<Output>) {
        let mut staying: Vec<(Moment, LinkId)> = self
            .guests
            .strangers
            .iter()
            .filter_map(|link| Some((link, self.guests.links.get(link)?)))
            .filter(|(_, guest)| {
                let may_go = !guest.leaving && !guest.protected;
                may_go && of(guest) && self.is_stranger(guest.peer)
            })
            .map(|(link, guest)| (guest.active, *link))
            .collect();
        staying.sort_unstable();
        let surplus = (staying.len() + 1).saturating_sub(share);
        for (_, link) in staying.into_iter().take(surplus) {
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
