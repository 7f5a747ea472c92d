//! Who may stand at the door: a bounded place for each newcomer, some of them kept for whoever was a signer before.
//!
//! It never closes a connection, and never knows more of a newcomer than where it comes from.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::budget::Source;
use super::service::lock;
use crate::limits;

/// Who is at the door.
#[derive(Clone, Default)]
pub(super) struct Newcomers(Arc<Mutex<Door>>);

#[derive(Default)]
struct Door {
    places: HashMap<Source, usize>,
    /// Where signers have come from, the latest last.
    known: VecDeque<Source>,
}

/// A newcomer's place, given back when it is dropped.
pub(super) struct Place {
    newcomers: Newcomers,
    source: Source,
}

impl Newcomers {
    /// `None` when there is none left for this address.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let source = Source::of(address);
        let mut door = lock(&self.0);
        let all: usize = door.places.values().sum();
        let here = door.places.get(&source).copied().unwrap_or(0);
        let reserved = if door.known.contains(&source) {
            0
        } else {
            limits::GATEWAY_NEWCOMERS_RESERVED
        };
        if all.saturating_add(reserved) >= limits::GATEWAY_NEWCOMERS
            || here >= limits::GATEWAY_NEWCOMERS_PER_SOURCE
        {
            return None;
        }
        door.places.insert(source, here + 1);
        drop(door);
        let newcomers = self.clone();
        Some(Place { newcomers, source })
    }
}

impl Place {
    /// This newcomer is the signer now: its source has places of its own from here on. Gives the place back.
    pub(super) fn remember(self) {
        let mut door = lock(&self.newcomers.0);
        door.known.retain(|known| *known != self.source);
        door.known.push_back(self.source);
        if door.known.len() > limits::GATEWAY_KNOWN_SOURCES {
            door.known.pop_front();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut door = lock(&self.newcomers.0);
        if let Some(here) = door.places.get_mut(&self.source) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                door.places.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn strangers(newcomers: &Newcomers) -> Vec<Place> {
        (0..=255_u8)
            .filter_map(|last| newcomers.take([192, 0, 2, last].into()))
            .collect()
    }

    #[test]
    fn p9_strangers_do_not_take_the_places_of_whoever_was_a_signer() {
        let newcomers = Newcomers::default();
        let signer = IpAddr::from([198, 51, 100, 1]);
        newcomers.take(signer).unwrap().remember();
        let crowd = strangers(&newcomers);
        assert_eq!(
            crowd.len(),
            limits::GATEWAY_NEWCOMERS - limits::GATEWAY_NEWCOMERS_RESERVED
        );
        assert!(newcomers.take([203, 0, 113, 1].into()).is_none());
        let returning: Vec<_> = (0..100).filter_map(|_| newcomers.take(signer)).collect();
        assert_eq!(returning.len(), limits::GATEWAY_NEWCOMERS_PER_SOURCE);
        drop(crowd);
        assert!(newcomers.take([203, 0, 113, 1].into()).is_some());
    }

    #[test]
    fn p9_a_slash_64_and_a_mapped_address_are_one_source() {
        let newcomers = Newcomers::default();
        let places: Vec<_> = (0..100_u16)
            .filter_map(|last| newcomers.take([0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()))
            .collect();
        assert_eq!(places.len(), limits::GATEWAY_NEWCOMERS_PER_SOURCE);
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        newcomers.take(mapped).unwrap().remember();
        assert!(
            lock(&newcomers.0)
                .known
                .contains(&Source::of([192, 0, 2, 1].into()))
        );
    }

    #[test]
    fn p9_the_sources_of_signers_are_bounded_in_number() {
        let newcomers = Newcomers::default();
        for last in 0..=255_u8 {
            newcomers.take([192, 0, 2, last].into()).unwrap().remember();
        }
        let door = lock(&newcomers.0);
        assert_eq!(door.known.len(), limits::GATEWAY_KNOWN_SOURCES);
        assert!(door.places.is_empty());
    }
}
