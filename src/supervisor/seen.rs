//! When peers were last seen and how they have failed: the part of [`SupervisorMachine`] that recalls it after a restart, and tells it to
//! whoever puts it down.
//!
//! What is recalled changes the order of dialling, and how long the first wait is. It never delays the first dial of a peer: at
//! the last start it may have been our own network that failed. Pure, as the machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::machine::SupervisorMachine;
use super::roster::{Backoff, Peer};
use crate::book::Sighting;
use crate::clock::Moment;
use crate::limits;
use crate::node_id::NodeId;
use std::time::Duration;

/// When a link with a peer was last up, in whole seconds from the start of the clock: below zero when it was in an earlier process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen(i64);

impl Seen {
    pub(super) fn at(now: Moment) -> Self {
        Self(seconds(now.since_start()))
    }

    fn ago(now: Moment, ago: Duration) -> Self {
        Self(Self::at(now).0.saturating_sub(seconds(ago)))
    }

    /// How long ago that is.
    fn age(self, now: Moment) -> Duration {
        let age = Self::at(now).0.saturating_sub(self.0);
        Duration::from_secs(u64::try_from(age).unwrap_or_default())
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl SupervisorMachine {
    /// Peers with a link that is up, in no order.
    pub(crate) fn peers_up(&self) -> impl Iterator<Item = NodeId> {
        let up = |(_, peer): &(NodeId, &Peer)| peer.up().next().is_some();
        self.peers.iter().filter(up).map(|(id, _)| id)
    }

    /// Links that are up, and whose end has not been heard of.
    pub(crate) fn links_up(&self) -> usize {
        self.peers.iter().map(|(_, peer)| peer.up().count()).sum()
    }

    /// Takes up what an earlier process has seen of a peer. What this one has seen of it counts for more.
    pub(super) fn recall(&mut self, now: Moment, id: NodeId, ago: Option<Duration>, failures: u32) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let before = ago.map(|ago| Seen::ago(now, ago));
            peer.seen = peer.seen.or(before);
            if peer.backoff.failures() == 0 && peer.links().next().is_none() {
                peer.backoff = Backoff::after(failures.min(limits::FAILURES_RECALLED));
            }
        }
        self.requeue(id);
    }

    /// What there is to put down of a peer that is on record. `unix`: the same moment as `now`, since the Unix epoch.
    pub fn sighting(&self, now: Moment, unix: Duration, id: NodeId) -> Option<Sighting> {
        let peer = self.peers.get(&id).filter(|peer| peer.is_on_record())?;
        let up_since = peer.up_since();
        let stable = up_since.is_some_and(|since| now.since(since) >= limits::STABLE_AFTER);
        let seen = up_since.map(|_| Seen::at(now)).or(peer.seen);
        Some(Sighting {
            node_id: id,
            last_seen: seen.map(|seen| unix.saturating_sub(seen.age(now)).as_secs()),
            failures: if stable { 0 } else { peer.backoff.failures() },
        })
    }
}
