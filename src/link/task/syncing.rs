//! A gossip link's part in the catch-up: its filter as it comes up, and, when it has the turn, the range query and what follows.

use super::LinkTask;
use crate::clock::Moment;
use crate::link::catch_up::{Outcome, RangeSync, Step, SyncDesk, Turn};
use crate::link::{Identity, Tag};
use crate::wire::{BITCOIN_MAINNET, ChainHash, GossipTimestampFilter, Init, MessageType};
use std::sync::Arc;

/// `gossip_queries` (BOLT 9).
const GOSSIP_QUERIES: u16 = 7;

/// A range query under way on this link.
pub(super) struct Syncing {
    range: RangeSync,
    turn: Turn,
}

impl LinkTask {
    fn chain(&self) -> ChainHash {
        let networks = &self.env().settings.networks;
        networks.first().copied().unwrap_or(BITCOIN_MAINNET)
    }

    /// Asks the peer for what the node has missed, if that is the supervisor's to do.
    pub(super) fn catch_up(&mut self, init: &Init) {
        if !self.env().settings.auto_sync {
            return;
        }
        let env = self.env();
        let last = env.telemetry.frames().last_gossip_at();
        let (now, unix) = (env.clock.now(), env.clock.unix());
        let filter = env.sync.filter(self.chain(), now, unix, last);
        self.work().control.push_back(filter);
        let for_gossip =
            self.state().identity == Identity::Persona || self.state().tag() == Tag::GossipOnly;
        self.may_query = for_gossip && init.features.offers(GOSSIP_QUERIES);
        self.ask_for_range();
    }

    /// Asks for the range if this link may and nobody else does. Called again with each pong, for who had the turn may have failed.
    pub(super) fn ask_for_range(&mut self) {
        if !self.may_query || self.syncing.is_some() || self.leaving.is_some() {
            return;
        }
        let now = self.now();
        let Some(turn) = SyncDesk::turn(&self.env().sync, now) else {
            return;
        };
        let (range, query) = RangeSync::begin(self.chain(), now);
        self.work().control.push_back(query);
        self.syncing = Some(Box::new(Syncing { range, turn }));
    }

    /// An answer to a query, perhaps ours. The node gets it all the same.
    pub(super) fn answered(&mut self, kind: MessageType, message: &[u8]) {
        let answers = [
            MessageType::REPLY_CHANNEL_RANGE,
            MessageType::REPLY_SHORT_CHANNEL_IDS_END,
        ];
        if !answers.contains(&kind) {
            return;
        }
        let now = self.now();
        let Some(syncing) = &mut self.syncing else {
            return;
        };
        let graph = Arc::clone(&syncing.turn.graph);
        match syncing.range.take(now, message, &*graph) {
            Step::Wait => {}
            Step::Send(query) => self.work().control.push_back(query),
            Step::Over(outcome) => self.sync_ended(outcome),
        }
    }

    /// When the peer must have answered.
    pub(super) fn answer_by(&self) -> Option<Moment> {
        Some(self.syncing.as_ref()?.range.deadline())
    }

    /// The peer has not answered in time.
    pub(super) fn give_up_sync(&mut self) {
        let now = self.now();
        if self.answer_by().is_some_and(|by| by <= now) {
            self.sync_ended(Outcome::Unserved);
        }
    }

    fn sync_ended(&mut self, outcome: Outcome) {
        let Some(syncing) = self.syncing.take() else {
            return;
        };
        if outcome == Outcome::Unserved {
            // Another peer's turn.
            self.may_query = false;
        }
        if syncing.turn.end(self.now(), outcome) {
            let everything = GossipTimestampFilter::since(self.chain(), 0);
            self.work().control.push_back(everything.encode());
        }
    }
}
