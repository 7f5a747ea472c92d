//! Who may stand at the door: a bounded place for each newcomer, some of them kept for whoever was a signer before.
//!
//! A place is held until its connection is closed, or is the signer's. When there is none left, a later newcomer is let in and an
//! earlier one that has shown no valid macaroon goes: who only stands there keeps nobody out. Who has shown one is counted apart.
//!
//! It never closes a connection itself, and never knows more of a newcomer than where it comes from and whether it was vouched for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::budget::Source;
use super::service::lock;
use crate::limits;

/// Who is at the door.
#[derive(Clone, Default)]
pub(super) struct Newcomers(Arc<Mutex<Door>>);

#[derive(Default)]
struct Door {
    /// In the order in which they came.
    standing: BTreeMap<u64, Standing>,
    next: u64,
    /// Where signers have come from, the latest last.
    known: VecDeque<Source>,
}

struct Standing {
    source: Source,
    /// It has shown a valid macaroon.
    vouched: bool,
    out: oneshot::Sender<()>,
}

impl Door {
    fn evict(&mut self, id: Option<u64>) -> bool {
        let gone = id.and_then(|id| self.standing.remove(&id));
        // One that hangs up just now is gone as well.
        gone.map(|gone| gone.out.send(())).is_some()
    }

    fn count(&self, vouched: bool) -> usize {
        let same = |other: &&Standing| other.vouched == vouched;
        self.standing.values().filter(same).count()
    }

    /// The oldest of the source that has the most places: a crowd from one source makes way before anybody else does.
    fn of_the_crowd(&self, vouched: bool, may_go: impl Fn(&Source) -> bool) -> Option<u64> {
        let mut sources: HashMap<Source, (usize, u64)> = HashMap::new();
        for (id, other) in &self.standing {
            if other.vouched == vouched && may_go(&other.source) {
                sources.entry(other.source).or_insert((0, *id)).0 += 1;
            }
        }
        let crowd = sources.into_values();
        crowd
            .max_by_key(|(places, oldest)| (*places, std::cmp::Reverse(*oldest)))
            .map(|(_, oldest)| oldest)
    }

    /// Makes room for one more from this source. Whether there is any.
    fn make_room(&mut self, source: Source) -> bool {
        let mut here = self
            .standing
            .iter()
            .filter(|(_, other)| !other.vouched && other.source == source);
        let (oldest, places) = (here.next().map(|(id, _)| *id), here.count() + 1);
        if oldest.is_some() && places >= limits::GATEWAY_NEWCOMERS_PER_SOURCE {
            return self.evict(oldest);
        }
        let is_known = self.known.contains(&source);
        let reserved = if is_known {
            0
        } else {
            limits::GATEWAY_NEWCOMERS_RESERVED
        };
        if self.count(false).saturating_add(reserved) < limits::GATEWAY_NEWCOMERS {
            return true;
        }
        let other = self.of_the_crowd(false, |other| is_known || !self.known.contains(other));
        self.evict(other)
    }
}

/// A newcomer's place, for as long as its connection is open; given back when it is dropped.
pub(super) struct Stay(Place);

/// The same, for who learns what becomes of the newcomer.
#[derive(Clone)]
pub(super) struct Place {
    newcomers: Newcomers,
    source: Source,
    id: u64,
}

impl Newcomers {
    /// A place, and what tells that it is lost to a later one. `None` when there is none for this address.
    pub(super) fn take(&self, address: IpAddr) -> Option<(Stay, oneshot::Receiver<()>)> {
        let source = Source::of(address);
        let mut door = lock(&self.0);
        if !door.make_room(source) {
            return None;
        }
        let id = door.next;
        door.next += 1;
        let (out, evicted) = oneshot::channel();
        let standing = Standing {
            source,
            vouched: false,
            out,
        };
        door.standing.insert(id, standing);
        drop(door);
        let newcomers = self.clone();
        let place = Place {
            newcomers,
            source,
            id,
        };
        Some((Stay(place), evicted))
    }
}

impl Stay {
    pub(super) fn place(&self) -> Place {
        self.0.clone()
    }
}

impl Place {
    /// This newcomer has shown a valid macaroon: no stranger takes its place now, only too many of its like.
    pub(super) fn vouch(&self) {
        let mut door = lock(&self.newcomers.0);
        if !door.standing.contains_key(&self.id) {
            return;
        }
        if door.count(true) >= limits::GATEWAY_CALLERS {
            let other = door.of_the_crowd(true, |_| true);
            door.evict(other);
        }
        if let Some(standing) = door.standing.get_mut(&self.id) {
            standing.vouched = true;
        }
    }

    /// This newcomer is the signer now: its source has places of its own from here on. Gives the place back.
    pub(super) fn remember(self) {
        let mut door = lock(&self.newcomers.0);
        door.standing.remove(&self.id);
        door.known.retain(|known| *known != self.source);
        door.known.push_back(self.source);
        if door.known.len() > limits::GATEWAY_KNOWN_SOURCES {
            door.known.pop_front();
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        lock(&self.0.newcomers.0).standing.remove(&self.0.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    type Taken = (Stay, oneshot::Receiver<()>);

    fn strangers(newcomers: &Newcomers) -> Vec<Taken> {
        (0..=255_u8)
            .filter_map(|last| newcomers.take([192, 0, 2, last].into()))
            .collect()
    }

    fn stand(taken: &mut [Taken]) -> usize {
        taken
            .iter_mut()
            .filter_map(|(_, out)| out.try_recv().err())
            .filter(|error| *error == oneshot::error::TryRecvError::Empty)
            .count()
    }

    #[test]
    fn p9_strangers_do_not_take_the_places_of_whoever_was_a_signer() {
        let newcomers = Newcomers::default();
        let signer = IpAddr::from([198, 51, 100, 1]);
        let (stay, _out) = newcomers.take(signer).unwrap();
        stay.place().remember();
        let mut returned = vec![newcomers.take(signer).unwrap()];
        let mut crowd = strangers(&newcomers);
        assert_eq!(crowd.len(), 256, "the later ones are let in");
        assert_eq!(
            stand(&mut crowd),
            limits::GATEWAY_NEWCOMERS - limits::GATEWAY_NEWCOMERS_RESERVED - 1
        );
        assert_eq!(stand(&mut returned), 1);
        returned.extend((0..100).map(|_| newcomers.take(signer).unwrap()));
        assert_eq!(stand(&mut returned), limits::GATEWAY_NEWCOMERS_PER_SOURCE);
        assert_eq!(
            stand(&mut crowd) + stand(&mut returned),
            limits::GATEWAY_NEWCOMERS - 1,
            "its own came first"
        );
    }

    #[test]
    fn p9_a_crowd_from_one_source_makes_way_for_a_lone_newcomer_and_no_lone_one_does() {
        let newcomers = Newcomers::default();
        let mut lone: Vec<_> = vec![newcomers.take([203, 0, 113, 1].into()).unwrap()];
        let mut crowd = Vec::new();
        for round in 0..1000_u32 {
            let last = 1 + (round % 3) as u8;
            crowd.push(newcomers.take([192, 0, 2, last].into()).unwrap());
        }
        lone.push(newcomers.take([203, 0, 113, 2].into()).unwrap());
        assert_eq!(stand(&mut lone), 2);
        assert_eq!(stand(&mut crowd), 22);
    }

    #[test]
    fn p9_who_has_shown_a_macaroon_is_counted_apart_and_bounded_too() {
        let newcomers = Newcomers::default();
        let mut callers = Vec::new();
        for last in 0..=99_u8 {
            let taken = newcomers.take([192, 0, 2, last].into()).unwrap();
            taken.0.place().vouch();
            callers.push(taken);
        }
        assert_eq!(stand(&mut callers), limits::GATEWAY_CALLERS);
        let mut crowd: Vec<_> = (0..=99_u8)
            .filter_map(|last| newcomers.take([203, 0, 113, last].into()))
            .collect();
        assert_eq!(stand(&mut callers), limits::GATEWAY_CALLERS);
        assert_eq!(
            stand(&mut crowd),
            limits::GATEWAY_NEWCOMERS - limits::GATEWAY_NEWCOMERS_RESERVED
        );
        drop((callers, crowd));
        assert!(lock(&newcomers.0).standing.is_empty());
    }

    #[test]
    fn p9_a_slash_64_and_a_mapped_address_are_one_source() {
        let newcomers = Newcomers::default();
        let mut places: Vec<_> = (0..100_u16)
            .filter_map(|last| newcomers.take([0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()))
            .collect();
        assert_eq!(stand(&mut places), limits::GATEWAY_NEWCOMERS_PER_SOURCE);
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        newcomers.take(mapped).unwrap().0.place().remember();
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
            let (stay, _out) = newcomers.take([192, 0, 2, last].into()).unwrap();
            stay.place().remember();
        }
        let door = lock(&newcomers.0);
        assert_eq!(door.known.len(), limits::GATEWAY_KNOWN_SOURCES);
        assert!(door.standing.is_empty());
    }
}
