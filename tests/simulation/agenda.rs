//! The virtual clock: what happens next, and when. Ties are broken by the order of planning, so that a run replays from its seed.

use pilotlight::clock::Moment;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// What is planned.
pub struct Agenda<E> {
    heap: BinaryHeap<Planned<E>>,
    planned: u64,
    now: Moment,
}

struct Planned<E> {
    at: Moment,
    number: u64,
    event: E,
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Planned<E> {}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Planned<E> {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> Agenda<E> {
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            planned: 0,
            now: Moment::START,
        }
    }

    pub fn now(&self) -> Moment {
        self.now
    }

    /// At that moment, or now if it has passed.
    pub fn at(&mut self, at: Moment, event: E) {
        self.planned += 1;
        self.heap.push(Planned {
            at: at.max(self.now),
            number: self.planned,
            event,
        });
    }

    pub fn after(&mut self, by: Duration, event: E) {
        self.at(self.now.after(by), event);
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|planned| planned.at)
    }

    /// Moves the clock on to whatever comes first and gives it.
    pub fn take(&mut self) -> Option<E> {
        let planned = self.heap.pop()?;
        self.now = planned.at;
        Some(planned.event)
    }

    /// Moves the clock on to a moment before which nothing happens.
    pub fn pass(&mut self, until: Moment) {
        assert!(
            self.next().is_none_or(|at| at >= until),
            "nothing is skipped"
        );
        self.now = self.now.max(until);
    }
}
