//! The peers that the machine knows, each in a place of its own, and an index that finds the place by node id.
//!
//! ```text
//!   node id ──index──▶ place ──▶ peer          a walk: every place in turn
//! ```
//!
//! A look-up costs one hash, or nothing when it is for the peer that was looked up last or for the one after it, as most are: an input is
//! about one peer, or about all in turn. Node ids are chosen by whoever makes the keys, so the hash is keyed with randomness of this process
//! (SipHash): nobody can choose ids that collide. Nothing ever walks the index, so that randomness has no effect: the order of a walk is that
//! of the places, and those follow from the inputs alone. Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::roster::Peer;
use crate::node_id::NodeId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where a peer is kept, as long as it is known. Afterwards nobody is there: `tenancy` tells the next one from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    at: u32,
    tenancy: u32,
}

/// All peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    places: Vec<Option<(NodeId, Peer)>>,
    /// How many have left each place.
    tenancies: Vec<u32>,
    /// Places that nobody has; the newest is taken first.
    free: Vec<usize>,
    index: HashMap<NodeId, usize>,
    /// The place that was looked up last. Only a hint, for whatever is found there is compared. Atomic so that the machine can be shared
    /// between threads that only look.
    last: AtomicUsize,
}

impl Clone for Peers {
    fn clone(&self) -> Self {
        Self {
            places: self.places.clone(),
            tenancies: self.tenancies.clone(),
            free: self.free.clone(),
            index: self.index.clone(),
            last: AtomicUsize::new(self.last.load(Ordering::Relaxed)),
        }
    }
}

impl Peers {
    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn find(&self, id: &NodeId) -> Option<usize> {
        let last = self.last.load(Ordering::Relaxed);
        let is_at = |place: usize| {
            let kept = self.places.get(place).and_then(Option::as_ref);
            kept.is_some_and(|(there, _)| there == id)
        };
        if is_at(last) {
            return Some(last);
        }
        // In a walk over all peers, it is the next.
        let next = last.wrapping_add(1);
        let found = if is_at(next) {
            next
        } else {
            self.index.get(id).copied()?
        };
        self.last.store(found, Ordering::Relaxed);
        Some(found)
    }

    pub(super) fn contains(&self, id: &NodeId) -> bool {
        self.find(id).is_some()
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Peer> {
        let (_, peer) = self.places.get(self.find(id)?)?.as_ref()?;
        Some(peer)
    }

    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Peer> {
        let found = self.find(id)?;
        let (_, peer) = self.places.get_mut(found)?.as_mut()?;
        Some(peer)
    }

    /// Where a peer is kept.
    pub(super) fn place(&self, id: &NodeId) -> Option<Place> {
        let found = self.find(id)?;
        Some(Place {
            at: u32::try_from(found).ok()?,
            tenancy: *self.tenancies.get(found)?,
        })
    }

    /// Who is kept there.
    pub(super) fn at(&self, place: Place) -> Option<NodeId> {
        let at = usize::try_from(place.at).ok()?;
        let (id, _) = self.places.get(at)?.as_ref()?;
        (self.tenancies.get(at) == Some(&place.tenancy)).then_some(*id)
    }

    /// The peer of that id, made known if it is not.
    #[expect(
        clippy::indexing_slicing,
        reason = "the index holds places below the length, and the list never shrinks"
    )]
    pub(super) fn entry(&mut self, id: NodeId) -> &mut Peer {
        let end = self.places.len();
        let free = &mut self.free;
        let place = *self
            .index
            .entry(id)
            .or_insert_with(|| free.pop().unwrap_or(end));
        if place == end {
            self.places.push(None);
            self.tenancies.push(0);
        }
        *self.last.get_mut() = place;
        let (_, peer) = self.places[place].get_or_insert_with(|| (id, Peer::default()));
        peer
    }

    /// Forgets a peer; its place is free for another.
    pub(super) fn remove(&mut self, id: &NodeId) {
        if let Some(place) = self.index.remove(id)
            && let Some(kept) = self.places.get_mut(place)
            && kept.take().is_some()
        {
            if let Some(tenancy) = self.tenancies.get_mut(place) {
                *tenancy = tenancy.wrapping_add(1);
            }
            self.free.push(place);
        }
    }

    /// Every peer, by its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.places.iter().flatten().map(|(id, peer)| (*id, peer))
    }

    /// Every peer, by its place.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Peer)> {
        let kept = self.places.iter_mut().flatten();
        kept.map(|(id, peer)| (*id, peer))
    }

    /// The ids of all peers, by their places: for a walk that changes more than the peer at hand.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::node_id::LocalKey;
    use std::collections::BTreeMap;

    fn ids(count: u8) -> Vec<NodeId> {
        let id = |number| LocalKey::from_bytes(&mut [number; 32]).unwrap().node_id();
        (1..=count).map(id).collect()
    }

    /// Whatever comes and goes: what is found is what was put there, and no two share a place.
    #[test]
    fn what_is_found_is_what_a_sorted_map_would_find() {
        let ids = ids(40);
        let mut random = fastrand::Rng::with_seed(7);
        let (mut peers, mut model) = (Peers::default(), BTreeMap::new());
        let mut left = Vec::new();
        for turn in 0..4000_u32 {
            let id = ids[random.usize(..ids.len())];
            match random.u8(..4) {
                0 => {
                    left.extend(peers.place(&id));
                    peers.remove(&id);
                    model.remove(&id);
                }
                1 => {
                    peers.entry(id).weight = turn;
                    model.insert(id, turn);
                }
                2 => {
                    let found = peers.get_mut(&id).map(|peer| &mut peer.weight);
                    let expected = model.get_mut(&id);
                    assert_eq!(found.as_deref(), expected.as_deref());
                    if let (Some(found), Some(expected)) = (found, expected) {
                        (*found, *expected) = (turn, turn);
                    }
                }
                _ => {
                    let found = peers.get(&id).map(|peer| peer.weight);
                    assert_eq!(found, model.get(&id).copied());
                    assert_eq!(peers.contains(&id), found.is_some());
                    let place = peers.place(&id);
                    assert_eq!(place.is_some(), found.is_some());
                    assert_eq!(place.and_then(|place| peers.at(place)), place.map(|_| id));
                }
            }
            assert_eq!(peers.len(), model.len());
            let walked: BTreeMap<_, _> = peers.iter().map(|(id, peer)| (id, peer.weight)).collect();
            assert_eq!(
                (walked.len(), walked),
                (peers.iter().count(), model.clone())
            );
        }
        assert!(
            left.iter().all(|place| peers.at(*place).is_none()),
            "whoever was there before is not mistaken for whoever is there now"
        );
        assert!(
            peers.places.len() <= ids.len(),
            "places are taken again: {}",
            peers.places.len()
        );
    }

    /// The machine must replay exactly, and each process draws another key for its hashes.
    #[test]
    fn the_order_of_a_walk_follows_from_the_inputs_alone() {
        let ids = ids(100);
        let [one, two] = [(); 2].map(|()| {
            let mut peers = Peers::default();
            for id in &ids {
                peers.entry(*id);
            }
            for id in ids.iter().step_by(3) {
                peers.remove(id);
            }
            for id in ids.iter().step_by(6) {
                peers.entry(*id);
            }
            peers
        });
        assert_eq!(one.ids(), two.ids());
        let by_hash: Vec<NodeId> = one.index.keys().copied().collect();
        assert_ne!(one.ids(), by_hash, "the index has an order of its own");
    }
}
