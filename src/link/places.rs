//! Who may have a place among the inbound handshakes under way, and who loses his to a newcomer.
//!
//! A place is *owing* while the peer owes us the rest of an act, and *working* while we or the signer have something to do. Only
//! who owes can lose his place; nobody who waits for our answer does.
//!
//! ```text
//!  newcomer ──▶ his address has its share? ──▶ its oldest that owes goes
//!                 │ no
//!                 ▼
//!               his network has its share? ──▶ its oldest that owes goes
//!                 │ no
//!                 ▼
//!               no place is free? ──▶ of the networks with the most places, the oldest that owes goes
//!                 │ no
//!                 ▼
//!               a free place
//! ```
//!
//! So silent sockets, however many, keep nobody out: they push out one another. Whoever has few places loses none to whoever has
//! many. Pure: it never reads a clock or a socket; the order of arrival is its time.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits;
use crate::network::{Party, Subnet};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A place's number, in the order of arrival.
pub(crate) type PlaceId = u64;

/// What a handshake waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// The peer's act one.
    OwesActOne,
    /// The peer's act three.
    OwesActThree,
    /// The signer, or us.
    Working,
}

/// One handshake under way.
#[derive(Debug, Clone, Copy)]
struct Place {
    party: Party,
    subnet: Subnet,
    progress: Progress,
}

/// What a newcomer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A place; whoever had `instead` has lost his.
    Place {
        /// The newcomer's.
        id: PlaceId,
        /// Whose handshake ends for it.
        instead: Option<PlaceId>,
    },
    /// None: all that he might have are working.
    Full,
}

/// The handshakes under way.
#[derive(Debug, Default)]
pub(crate) struct Places {
    next: PlaceId,
    taken: BTreeMap<PlaceId, Place>,
}

impl Places {
    /// A place for a connection from `ip`.
    pub(crate) fn enter(&mut self, ip: IpAddr) -> Entry {
        let (party, subnet) = (Party::of(ip), Subnet::of(ip));
        let instead = match self.crowd(party, subnet) {
            None => None,
            Some(crowd) => match self.victim(crowd) {
                None => return Entry::Full,
                victim => victim,
            },
        };
        if let Some(victim) = instead {
            self.taken.remove(&victim);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let place = Place {
            party,
            subnet,
            progress: Progress::OwesActOne,
        };
        self.taken.insert(id, place);
        Entry::Place { id, instead }
    }

    /// Notes how far a handshake is. `false`: it has lost its place.
    pub(crate) fn note(&mut self, id: PlaceId, progress: Progress) -> bool {
        self.taken
            .get_mut(&id)
            .map(|place| place.progress = progress)
            .is_some()
    }

    /// The handshake is over.
    pub(crate) fn leave(&mut self, id: PlaceId) {
        self.taken.remove(&id);
    }

    /// Which places a newcomer competes for, if no place is free for him.
    fn crowd(&self, party: Party, subnet: Subnet) -> Option<Crowd> {
        let (of_party, of_subnet) = if party.is_many() {
            (limits::HANDSHAKES_OF_MANY, limits::HANDSHAKES_OF_MANY)
        } else {
            (
                limits::HANDSHAKES_PER_ADDRESS,
                limits::HANDSHAKES_PER_SUBNET,
            )
        };
        let count = |crowd: Crowd| self.taken.values().filter(|place| crowd.has(place)).count();
        let crowds = [
            (Crowd::Party(party), of_party),
            (Crowd::Subnet(subnet), of_subnet),
            (Crowd::All, limits::INBOUND_HANDSHAKES),
        ];
        crowds
            .into_iter()
            .find(|(crowd, share)| count(*crowd) >= *share)
            .map(|(crowd, _)| crowd)
    }

    /// Who of a crowd goes: of the networks with the most places, who owes act one before who owes act three, the oldest first.
    fn victim(&self, crowd: Crowd) -> Option<PlaceId> {
        let mut sizes = BTreeMap::<Subnet, usize>::new();
        for place in self.taken.values() {
            *sizes.entry(place.subnet).or_default() += 1;
        }
        self.taken
            .iter()
            .filter(|(_, place)| crowd.has(place) && place.progress != Progress::Working)
            .min_by_key(|(id, place)| {
                let size = sizes.get(&place.subnet).copied().unwrap_or_default();
                (Reverse(size), place.progress, **id)
            })
            .map(|(id, _)| *id)
    }
}

/// Some of the places.
#[derive(Debug, Clone, Copy)]
enum Crowd {
    Party(Party),
    Subnet(Subnet),
    All,
}

impl Crowd {
    fn has(self, place: &Place) -> bool {
        match self {
            Self::Party(party) => place.party == party,
            Self::Subnet(subnet) => place.subnet == subnet,
            Self::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(subnet: u16, host: u8) -> IpAddr {
        let [high, low] = subnet.to_be_bytes();
        Ipv4Addr::new(10, high, low, host).into()
    }

    fn enter(places: &mut Places, ip: IpAddr) -> (PlaceId, Option<PlaceId>) {
        match places.enter(ip) {
            Entry::Place { id, instead } => (id, instead),
            Entry::Full => panic!("full: {places:?}"),
        }
    }

    /// All places, one from each of so many networks.
    fn full_of_networks() -> Places {
        let mut places = Places::default();
        for subnet in 0..limits::INBOUND_HANDSHAKES {
            let subnet = u16::try_from(subnet).unwrap_or_default();
            assert_eq!(enter(&mut places, ip(subnet, 1)).1, None);
        }
        places
    }

    #[test]
    fn p9_the_oldest_silent_one_goes_when_no_place_is_free() {
        let mut places = full_of_networks();
        assert_eq!(enter(&mut places, ip(900, 1)).1, Some(0));
        // Who owes act three has shown more than who has shown nothing.
        assert!(places.note(1, Progress::OwesActThree));
        assert_eq!(enter(&mut places, ip(901, 1)).1, Some(2));
        // The signer works for this one.
        assert!(places.note(3, Progress::Working));
        assert_eq!(enter(&mut places, ip(902, 1)).1, Some(4));
        places.leave(5);
        assert_eq!(enter(&mut places, ip(903, 1)).1, None);
        assert!(!places.note(0, Progress::Working), "its place is lost");
        assert_eq!(places.taken.len(), limits::INBOUND_HANDSHAKES);
    }

    #[test]
    fn p9_an_address_and_a_network_that_have_their_share_lose_only_their_own() {
        let mut places = Places::default();
        let (stranger, _) = enter(&mut places, ip(7, 1));
        let first: Vec<_> = (0..limits::HANDSHAKES_PER_ADDRESS)
            .map(|_| enter(&mut places, ip(1, 1)).0)
            .collect();
        assert_eq!(enter(&mut places, ip(1, 1)).1, Some(first[0]));
        for host in (0_u8..).take(limits::HANDSHAKES_PER_SUBNET - limits::HANDSHAKES_PER_ADDRESS) {
            assert_eq!(enter(&mut places, ip(1, 100 + host)).1, None);
        }
        assert_eq!(enter(&mut places, ip(1, 99)).1, Some(first[1]));
        assert!(places.note(stranger, Progress::Working), "it has its place");
    }

    #[test]
    fn p9_who_has_many_places_loses_one_before_who_has_few() {
        let mut places = Places::default();
        let (honest, _) = enter(&mut places, ip(7, 1));
        let many = limits::INBOUND_HANDSHAKES / limits::HANDSHAKES_PER_SUBNET;
        for subnet in (100_u16..).take(many) {
            for host in (0_u8..).take(limits::HANDSHAKES_PER_SUBNET) {
                enter(&mut places, ip(subnet, host));
            }
        }
        // A thousand newcomers of networks that have few places, and none pushes out the oldest of all.
        for subnet in 1000..2000 {
            let (_, instead) = enter(&mut places, ip(subnet, 1));
            assert_ne!(instead, Some(honest));
            places.leave(places.next - 1);
            enter(&mut places, ip(100 + subnet % 4, 77));
        }
        assert!(places.note(honest, Progress::OwesActThree));
    }

    #[test]
    fn p9_whoever_waits_for_the_signer_keeps_his_place() {
        let mut places = full_of_networks();
        for id in 0..limits::INBOUND_HANDSHAKES as PlaceId {
            assert!(places.note(id, Progress::Working));
        }
        assert_eq!(places.enter(ip(900, 1)), Entry::Full);
        assert_eq!(places.enter(ip(0, 2)), Entry::Full);
    }

    /// Tor's daemon and a proxy on this machine dial from its own address, on behalf of many.
    #[test]
    fn p9_the_machines_own_address_has_the_share_of_many_and_no_more() {
        let mut places = Places::default();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for _ in 0..limits::HANDSHAKES_OF_MANY {
            assert_eq!(enter(&mut places, local).1, None);
        }
        assert_eq!(enter(&mut places, local).1, Some(0));
    }
}
