//! The newest events, kept so that who comes later can be told them: a page that is opened after a lapse still shows it.
//!
//! There are two shelves, so that peers who come and go cannot push out what the signer did. What comes in a flood and is of no use
//! later (pongs, ECDHs, handshakes, refused messages) is not kept. Kept events are numbered from 1, without gaps. A reader takes a few
//! at a time, so that the lock, which whoever emits an event needs too, is never held for long.

use super::event::{Event, Recorded};
use crate::limits;
use std::collections::VecDeque;
use std::time::Duration;

/// Where an event is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shelf {
    /// What happens to the node and its signer: rare, and worth the most.
    Node,
    /// What happens to one peer.
    Peers,
}

/// Events that are kept, and how many there have been.
#[derive(Debug, Default)]
pub(super) struct History {
    newest: u64,
    evicted: u64,
    node: VecDeque<Kept>,
    peers: VecDeque<Kept>,
}

/// An event as it is kept: thousands are.
#[derive(Debug)]
struct Kept {
    /// In nanoseconds, which last until the year 2554.
    at: u64,
    number: u64,
    event: Event,
}

impl Kept {
    fn recorded(&self) -> Recorded {
        Recorded {
            at: Duration::from_nanos(self.at),
            event: self.event.clone(),
            number: Some(self.number),
        }
    }
}

fn shelf(event: &Event) -> Option<Shelf> {
    match event {
        Event::Listening { .. }
        | Event::GatewayListening { .. }
        | Event::ModeChanged { .. }
        | Event::SignerAttached { .. }
        | Event::SignerLapsed(_)
        | Event::SignerTakenOver { .. }
        | Event::SignerStalled { .. }
        | Event::HeldDown { .. }
        | Event::Relit { .. }
        | Event::GossipFloor { .. }
        | Event::HtlcDeadline(_)
        | Event::AbsencePlanned { .. }
        | Event::AbsenceOver { .. }
        | Event::BookFailed { .. }
        | Event::InboxStalled { .. }
        | Event::ListenerBehind { .. }
        | Event::Drained { .. } => Some(Shelf::Node),
        Event::Dialing { .. }
        | Event::DialFailed { .. }
        | Event::LinkUp { .. }
        | Event::LinkDown { .. }
        | Event::Leased { .. }
        | Event::Tagged { .. }
        | Event::MistagSuspected { .. }
        | Event::PeerComplained { .. }
        | Event::Banned { .. }
        | Event::SignerRefused { .. } => Some(Shelf::Peers),
        _ => None,
    }
}

/// Whether an event of this kind is kept.
pub(super) fn keeps(event: &Event) -> bool {
    shelf(event).is_some()
}

impl History {
    /// Keeps an event, if it is of a kind that is kept, and numbers it.
    pub(super) fn keep(&mut self, recorded: &mut Recorded) {
        let (kept, most) = match shelf(&recorded.event) {
            Some(Shelf::Node) => (&mut self.node, limits::EVENTS_KEPT),
            Some(Shelf::Peers) => (&mut self.peers, limits::PEER_EVENTS_KEPT),
            None => return,
        };
        self.newest = self.newest.saturating_add(1);
        recorded.number = Some(self.newest);
        if kept.len() >= most {
            kept.pop_front();
            self.evicted = self.evicted.saturating_add(1);
        }
        kept.push_back(Kept {
            at: u64::try_from(recorded.at.as_nanos()).unwrap_or(u64::MAX),
            number: self.newest,
            event: recorded.event.clone(),
        });
    }

    /// The next kept events after number `after`, in order, at most `most`.
    pub(super) fn after(&self, after: u64, most: usize) -> Vec<Recorded> {
        let (mut node, mut peers) = (later(&self.node, after), later(&self.peers, after));
        let mut found = Vec::new();
        while found.len() < most {
            let from = match (node.peek(), peers.peek()) {
                (Some(one), Some(other)) if one.number <= other.number => &mut node,
                (Some(_), None) => &mut node,
                (_, Some(_)) => &mut peers,
                (None, None) => break,
            };
            found.extend(from.next().map(Kept::recorded));
        }
        found
    }

    /// How many events after number `after` are no longer kept.
    pub(super) fn lost_after(&self, after: u64) -> u64 {
        let there = later(&self.node, after).len() + later(&self.peers, after).len();
        let there = u64::try_from(there).unwrap_or(u64::MAX);
        self.newest.saturating_sub(after).saturating_sub(there)
    }

    /// How many have been thrown away.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The number of the newest event that was kept; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }
}

fn later(
    shelf: &VecDeque<Kept>,
    after: u64,
) -> std::iter::Peekable<std::collections::vec_deque::Iter<'_, Kept>> {
    let first = shelf.partition_point(|kept| kept.number <= after);
    shelf.range(first..).peekable()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::node_id::LocalKey;
    use crate::supervisor::Mode;

    fn recorded(event: Event) -> Recorded {
        Recorded {
            at: Duration::ZERO,
            event,
            number: None,
        }
    }

    /// Some thousands are kept: the largest event is what each of them takes.
    #[test]
    fn a_kept_event_is_small() {
        assert!(size_of::<Kept>() <= 112, "{}", size_of::<Kept>());
    }

    fn of_the_node() -> Recorded {
        recorded(Event::ModeChanged {
            from: Mode::Live,
            to: Mode::Safe,
        })
    }

    fn of_a_peer() -> Recorded {
        let peer = LocalKey::from_bytes(&mut [1; 32]).unwrap().node_id();
        recorded(Event::MistagSuspected { peer })
    }

    fn numbers(events: &[Recorded]) -> Vec<u64> {
        events.iter().filter_map(|event| event.number).collect()
    }

    #[test]
    fn events_come_back_in_order_a_few_at_a_time_and_none_twice() {
        let mut history = History::default();
        for number in 0..100 {
            let mut event = if number % 7 == 0 {
                of_the_node()
            } else {
                of_a_peer()
            };
            history.keep(&mut event);
            assert_eq!(event.number, Some(number + 1));
        }
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let some = history.after(after, 9);
            let Some(last) = some.last() else { break };
            after = last.number.unwrap();
            all.extend(numbers(&some));
        }
        assert_eq!(all, (1..=100).collect::<Vec<_>>());
        assert_eq!((history.lost_after(0), history.lost_after(100)), (0, 0));
        assert_eq!(history.lost_after(u64::MAX), 0, "nonsense is no panic");
    }

    #[test]
    fn p9_peers_that_come_and_go_push_out_no_lapse_and_what_is_lost_is_counted() {
        let mut history = History::default();
        history.keep(&mut of_the_node());
        let flood = limits::PEER_EVENTS_KEPT as u64 * 3;
        for _ in 0..flood {
            history.keep(&mut of_a_peer());
        }
        assert_eq!(history.peers.len(), limits::PEER_EVENTS_KEPT);
        assert_eq!(history.after(0, 1)[0].event, of_the_node().event);
        let lost = flood - limits::PEER_EVENTS_KEPT as u64;
        assert_eq!(history.lost_after(0), lost);
        assert_eq!(history.lost_after(1), lost);
        assert_eq!(history.lost_after(flood), 0);
        for _ in 0..limits::EVENTS_KEPT * 2 {
            history.keep(&mut of_the_node());
        }
        assert_eq!(history.node.len(), limits::EVENTS_KEPT);
    }

    #[test]
    fn what_comes_in_a_flood_is_not_kept() {
        let mut history = History::default();
        let mut parked = recorded(Event::Parked { now: 1 });
        history.keep(&mut parked);
        assert_eq!((parked.number, history.newest()), (None, 0));
        assert!(!keeps(&parked.event) && keeps(&of_a_peer().event));
    }
}
