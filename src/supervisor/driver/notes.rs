//! What the supervisor's driver remembers across restarts of having met peers: it is recalled at the start, and noted in the book every few
//! minutes and at the end. Never at once: a peer that flaps would cost a write to the disk each time.

use super::Driver;
use crate::book::{PeerRecord, Sighting};
use crate::clock::{Moment, Sleep};
use crate::limits;
use crate::link::Tag;
use crate::node_id::NodeId;
use crate::supervisor::machine::{Input, Output};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// What is not in the book yet.
#[derive(Default)]
pub(super) struct Notes {
    /// Peers on record that have gone or failed since: bounded by the peers. That one has a link does not put it here.
    peers: BTreeSet<NodeId>,
    alarm: Option<(Moment, Sleep)>,
}

impl Notes {
    pub(super) fn alarm(&mut self) -> &mut Option<(Moment, Sleep)> {
        &mut self.alarm
    }

    /// A peer is off the record.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }
}

impl Driver {
    /// Takes up the peers that the book knows, without writing them back. That one was gossip-only is not known of this process's node:
    /// until the node says so, the peer is channel-bearing.
    pub(crate) fn recall(&mut self, known: Vec<PeerRecord>, seen: &[Sighting]) {
        let seen: HashMap<NodeId, &Sighting> =
            seen.iter().map(|seen| (seen.node_id, seen)).collect();
        let unix = self.env.clock.unix();
        for record in known {
            let peer = record.node_id;
            self.take_up(Input::Want {
                peer,
                addresses: record.addresses,
                tag: record.tag.filter(|tag| *tag == Tag::ChannelBearing),
                weight: Some(record.weight),
            });
            if let Some(seen) = seen.get(&peer) {
                let at = seen.last_seen.map(Duration::from_secs);
                self.take_up(Input::Recall {
                    peer,
                    seen_ago: at.map(|at| unix.saturating_sub(at)),
                    failures: seen.failures,
                });
            }
        }
    }

    fn take_up(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.machine
            .handle(self.env.clock.now(), input, &mut outputs);
        outputs.retain(|output| !matches!(output, Output::Save(_)));
        for output in outputs {
            self.act(output, None);
        }
    }

    /// There is something to note of a peer, some time.
    pub(super) fn seen(&mut self, peer: NodeId) {
        if self.is_on_record(peer) {
            self.notes.peers.insert(peer);
            self.wait_to_note();
        }
    }

    /// A peer has a link. As long as it has, it is noted without being kept for that.
    pub(super) fn there(&mut self, peer: NodeId) {
        if self.is_on_record(peer) {
            self.wait_to_note();
        }
    }

    fn is_on_record(&self, peer: NodeId) -> bool {
        let known = self.machine.peer(peer);
        known.is_some_and(crate::supervisor::roster::Peer::is_on_record)
    }

    fn wait_to_note(&mut self) {
        let clock = &self.env.clock;
        self.notes.alarm.get_or_insert_with(|| {
            let at = clock.now().after(limits::SIGHTINGS_EVERY);
            (at, clock.sleep_until(at))
        });
    }

    /// Hands on what is to be noted: of the peers that have gone or failed since, and of those who are there.
    pub(super) fn note_sightings(&mut self) {
        self.notes.alarm = None;
        let mut peers = std::mem::take(&mut self.notes.peers);
        let there: Vec<NodeId> = self.machine.peers_up().collect();
        let some_are_there = !there.is_empty();
        peers.extend(there);
        let (now, unix) = (self.env.clock.now(), self.env.clock.unix());
        let sighting = |peer| self.machine.sighting(now, unix, peer);
        self.keeper.note(peers.into_iter().filter_map(sighting));
        if some_are_there {
            self.wait_to_note();
        }
    }
}
