//! The virtual clock: what happens next, and when. Ties are broken by the order of planning, so that a run replays from its seed.
//!
//! What is planned for a later minute lies unsorted in that minute's bucket until its turn comes: most of what is planned in a month is far
//! off, and need not be looked through for what comes next.

use pilotlight::clock::Moment;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// What is planned.
pub struct Agenda<E> {
    /// All of the minute at hand; never empty unless all is.
    near: BinaryHeap<Planned<E>>,
    far: BTreeMap<u64, Vec<Planned<E>>>,
    /// The minute at hand: whatever comes before its end is near.
    minute: u64,
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
            near: BinaryHeap::new(),
            far: BTreeMap::new(),
            minute: 0,
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
        let at = at.max(self.now);
        let minute = at.since_start().as_secs() / 60;
        let planned = Planned {
            at,
            number: self.planned,
            event,
        };
        if minute <= self.minute {
            self.near.push(planned);
        } else {
            self.far.entry(minute).or_default().push(planned);
            self.draw_near();
        }
    }

    /// When nothing is left of the minute at hand, the next in which something is planned is at hand.
    fn draw_near(&mut self) {
        if self.near.is_empty()
            && let Some((minute, planned)) = self.far.pop_first()
        {
            self.minute = minute;
            self.near = BinaryHeap::from(planned);
        }
    }

    pub fn after(&mut self, by: Duration, event: E) {
        self.at(self.now.after(by), event);
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Moment> {
        self.near.peek().map(|planned| planned.at)
    }

    /// Moves the clock on to whatever comes first and gives it.
    pub fn take(&mut self) -> Option<E> {
        let planned = self.near.pop()?;
        self.now = planned.at;
        self.draw_near();
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
