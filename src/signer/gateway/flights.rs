//! What a signer owes an answer to: who waits for it, until when, and when it is given up.
//!
//! A request that nobody waits for any more keeps its place, for the signer may be at it still; one that is never answered loses
//! it in the end, whatever it is and whatever else is older.
//!
//! Pure: `now` is an argument. It never sends anything, and never decides what may be sent.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use super::queue::Ticket;
use super::terms::{Body, Kind};
use crate::clock::Moment;
use crate::limits;

/// A request that the signer has not answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) what: What,
    pub(super) kind: Kind,
    pub(super) stranger: bool,
    pub(super) sent: Moment,
    /// ECDH that were unanswered when it was sent.
    pub(super) ahead: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Challenge,
    Ping,
    For(Ticket, Moment),
    /// Nobody waits for it any more.
    Orphan,
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Flights {
    by_id: BTreeMap<u64, Flight>,
    /// When those who wait cease to.
    expiries: BTreeSet<(Moment, u64)>,
    /// When each is given up, of whatever kind.
    ends: BTreeSet<(Moment, u64)>,
    /// Given up: an answer is late all the same, not a broken protocol.
    abandoned: BTreeMap<u64, Kind>,
    ecdh: usize,
    passes: usize,
    strangers: usize,
    /// When a request of the node's own was last seen to go.
    pass_gone: Option<Moment>,
    /// Since when the oldest is the oldest.
    head_since: Moment,
}

impl Flights {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            by_id: BTreeMap::new(),
            expiries: BTreeSet::new(),
            ends: BTreeSet::new(),
            abandoned: BTreeMap::new(),
            ecdh: 0,
            passes: 0,
            strangers: 0,
            pass_gone: None,
            head_since: now,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Of these, ECDH.
    pub(super) fn ecdh(&self) -> usize {
        self.ecdh
    }

    /// Of these, the node's own requests.
    pub(super) fn passes(&self) -> usize {
        self.passes
    }

    /// Of these, strangers' ECDH.
    pub(super) fn strangers(&self) -> usize {
        self.strangers
    }

    #[cfg(test)]
    pub(super) fn abandoned(&self) -> usize {
        self.abandoned.len()
    }

    pub(super) fn get(&self, id: u64) -> Option<Flight> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn head_since(&self) -> Moment {
        self.head_since
    }

    /// The session begins.
    pub(super) fn restart(&mut self, now: Moment) {
        self.head_since = now;
    }

    /// When the oldest has been the oldest for too long.
    pub(super) fn stalled_at(&self) -> Option<Moment> {
        let head = self.by_id.values().next()?;
        Some(self.head_since.after(head.kind.stalled_after()))
    }

    /// Whether the oldest is a request of the node's own whose answer is still wanted: a person may be looking at it.
    pub(super) fn is_at_a_pass(&self) -> bool {
        self.by_id
            .values()
            .next()
            .is_some_and(|head| matches!((head.kind, head.what), (Kind::Pass(_), What::For(..))))
    }

    /// Whether a request of the node's own was in flight at any time since this one was sent.
    pub(super) fn beside_a_pass(&self, flight: &Flight) -> bool {
        self.passes > 0 || self.pass_gone.is_some_and(|gone| gone >= flight.sent)
    }

    /// When something here expires or is given up.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let first = |set: &BTreeSet<(Moment, u64)>| set.first().map(|(at, _)| *at);
        [first(&self.expiries), first(&self.ends)]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn take_off(
        &mut self,
        now: Moment,
        id: u64,
        what: What,
        kind: Kind,
        stranger: bool,
    ) {
        if self.by_id.is_empty() {
            self.head_since = now;
        }
        let flight = Flight {
            what,
            kind,
            stranger,
            sent: now,
            ahead: self.ecdh,
        };
        self.by_id.insert(id, flight);
        self.ecdh += usize::from(kind.is_ecdh());
        self.passes += usize::from(kind.is_pass());
        self.strangers += usize::from(stranger);
        self.ends.insert((now.after(kind.abandon_after()), id));
        if let What::For(_, deadline) = what {
            self.expiries.insert((deadline, id));
        }
    }

    pub(super) fn land(&mut self, now: Moment, id: u64) {
        let is_head = self.by_id.keys().next() == Some(&id);
        let Some(flight) = self.by_id.remove(&id) else {
            return;
        };
        if is_head {
            self.head_since = now;
        }
        self.ecdh -= usize::from(flight.kind.is_ecdh());
        self.strangers -= usize::from(flight.stranger);
        if flight.kind.is_pass() {
            self.passes -= 1;
            self.pass_gone = Some(now);
        }
        let end = flight.sent.after(flight.kind.abandon_after());
        self.ends.remove(&(end, id));
        if let What::For(_, deadline) = flight.what {
            self.expiries.remove(&(deadline, id));
        }
    }

    /// Nobody waits for this one any more. Who did, if it was a ticket's.
    pub(super) fn orphan(&mut self, id: u64) -> Option<Ticket> {
        let flight = self.by_id.get_mut(&id)?;
        match std::mem::replace(&mut flight.what, What::Orphan) {
            What::For(ticket, deadline) => {
                self.expiries.remove(&(deadline, id));
                Some(ticket)
            }
            What::Challenge | What::Ping | What::Orphan => None,
        }
    }

    /// The same for what this ticket waits for.
    pub(super) fn cancel(&mut self, ticket: Ticket) {
        let held = self
            .by_id
            .iter()
            .find(|(_, flight)| matches!(flight.what, What::For(held, _) if held == ticket));
        if let Some(id) = held.map(|(id, _)| *id) {
            self.orphan(id);
        }
    }

    /// The next whose wait is over.
    pub(super) fn pop_expired(&mut self, now: Moment) -> Option<Ticket> {
        loop {
            let (_, id) = self
                .expiries
                .first()
                .copied()
                .filter(|(at, _)| *at <= now)?;
            if let Some(ticket) = self.orphan(id) {
                return Some(ticket);
            }
            self.expiries.pop_first();
        }
    }

    /// Gives up what is never answered. Who still waits for it hears so, whatever his deadline: it holds a place that others need (P9).
    pub(super) fn give_up(&mut self, now: Moment) -> Vec<Ticket> {
        let mut waiting = Vec::new();
        while let Some((at, id)) = self.ends.first().copied()
            && at <= now
        {
            waiting.extend(self.orphan(id));
            if let Some(flight) = self.get(id) {
                self.abandoned.insert(id, flight.kind);
            }
            self.land(now, id);
            self.ends.remove(&(at, id));
            if self.abandoned.len() > limits::SIGNER_ABANDONED {
                self.abandoned.pop_first();
            }
        }
        waiting
    }

    /// Whether this answers what was given up; only once.
    pub(super) fn take_abandoned(&mut self, id: u64, body: Body) -> bool {
        let fits = self
            .abandoned
            .get(&id)
            .is_some_and(|kind| body == Body::Error || body == Body::Answer(*kind));
        fits && self.abandoned.remove(&id).is_some()
    }

    /// Everything is over. Who waited.
    pub(super) fn drain(&mut self) -> Vec<Ticket> {
        let flights = std::mem::take(&mut self.by_id);
        self.expiries.clear();
        self.ends.clear();
        self.abandoned.clear();
        (self.ecdh, self.passes, self.strangers) = (0, 0, 0);
        let ticket = |flight: Flight| match flight.what {
            What::For(ticket, _) => Some(ticket),
            What::Challenge | What::Ping | What::Orphan => None,
        };
        flights.into_values().filter_map(ticket).collect()
    }
}
