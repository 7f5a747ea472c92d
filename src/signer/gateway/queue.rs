//! What waits to be sent to the signer: the highest class first, within a class the oldest. The node's own requests wait apart from
//! the ECDH, so that neither holds up the other.
//!
//! Pure. It never sends anything, and its bound is kept by the machine that owns it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Kind;
use crate::clock::Moment;

/// By which a request's answer is handed back. The gateway's own number: the signer never sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How much a request matters; the first is sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// What the node itself wants signed: it is for a channel that is live.
    Node,
    /// Outbound, to a channel peer.
    ChannelDial,
    /// Outbound, to a gossip peer.
    GossipDial,
    /// A stranger who dialled us.
    Inbound,
}

/// A request that has not been sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) ticket: Ticket,
    pub(super) kind: Kind,
    pub(super) class: Class,
    pub(super) deadline: Moment,
}

/// Of ECDH, and after them of the node's own requests.
type Place = (bool, Class, u64);

/// The first place of the node's own requests.
const PASSES: Place = (true, Class::Node, 0);

/// The queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    places: BTreeMap<Place, Queued>,
    by_ticket: BTreeMap<Ticket, Place>,
    expiries: BTreeSet<(Moment, Ticket)>,
    strangers: usize,
    ecdh: usize,
    next: u64,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Of these, ECDH.
    pub(super) fn ecdh(&self) -> usize {
        self.ecdh
    }

    pub(super) fn strangers(&self) -> usize {
        self.strangers
    }

    pub(super) fn next_expiry(&self) -> Option<Moment> {
        self.expiries.first().map(|(at, _)| *at)
    }

    pub(super) fn push(&mut self, ticket: Ticket, kind: Kind, class: Class, deadline: Moment) {
        let place = (kind.is_pass(), class, self.next);
        self.next = self.next.wrapping_add(1);
        let queued = Queued {
            ticket,
            kind,
            class,
            deadline,
        };
        self.places.insert(place, queued);
        self.by_ticket.insert(ticket, place);
        self.expiries.insert((deadline, ticket));
        self.strangers += usize::from(class == Class::Inbound);
        self.ecdh += usize::from(!kind.is_pass());
    }

    /// The next ECDH to be sent. Strangers come last, so that leaving them out is a look at the front alone.
    pub(super) fn pop_ecdh(&mut self, strangers_too: bool) -> Option<Queued> {
        let (_, first) = self.places.range(..PASSES).next()?;
        let first = *first;
        if first.class == Class::Inbound && !strangers_too {
            return None;
        }
        self.remove(first.ticket);
        Some(first)
    }

    /// The next of the node's own requests to be sent.
    pub(super) fn pop_pass(&mut self) -> Option<Queued> {
        let (_, first) = self.places.range(PASSES..).next()?;
        let first = *first;
        self.remove(first.ticket);
        Some(first)
    }

    pub(super) fn pop_expired(&mut self, now: Moment) -> Option<Ticket> {
        let (_, ticket) = self
            .expiries
            .first()
            .copied()
            .filter(|(at, _)| *at <= now)?;
        self.remove(ticket);
        Some(ticket)
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(place) = self.by_ticket.remove(&ticket) else {
            return false;
        };
        if let Some(queued) = self.places.remove(&place) {
            self.expiries.remove(&(queued.deadline, ticket));
            self.strangers -= usize::from(queued.class == Class::Inbound);
            self.ecdh -= usize::from(!queued.kind.is_pass());
        }
        true
    }

    pub(super) fn drain(&mut self) -> Vec<Ticket> {
        self.expiries.clear();
        self.by_ticket.clear();
        (self.strangers, self.ecdh) = (0, 0);
        let places = std::mem::take(&mut self.places);
        places.into_values().map(|queued| queued.ticket).collect()
    }
}
