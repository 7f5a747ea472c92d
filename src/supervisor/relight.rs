//! A return in progress: which channel peers are still to come back, and how long it took. Plain data; it decides nothing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::orders::Output;
use crate::clock::Moment;
use crate::node_id::NodeId;
use crate::signer::Epoch;
use std::collections::BTreeSet;

/// A return in progress.
#[derive(Debug, Clone)]
pub(super) struct Relight {
    epoch: Epoch,
    since: Moment,
    waiting: BTreeSet<NodeId>,
    /// When the last of them came up.
    last_up: Option<Moment>,
    up: usize,
    failed: usize,
}

impl Relight {
    /// The return of `waiting`, under the session that began at `since`.
    pub(super) fn new(epoch: Epoch, since: Moment, waiting: BTreeSet<NodeId>) -> Self {
        Self {
            epoch,
            since,
            waiting,
            last_up: None,
            up: 0,
            failed: 0,
        }
    }

    pub(super) fn came_up(&mut self, now: Moment, peer: NodeId) {
        if self.waiting.remove(&peer) {
            self.up += 1;
            self.last_up = Some(now);
        }
    }

    pub(super) fn failed(&mut self, peer: NodeId) {
        if self.waiting.remove(&peer) {
            self.failed += 1;
        }
    }

    /// The node wants nothing of this peer any more, or it cannot be dialled any more.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.waiting.remove(&peer);
    }

    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What there is to say in the end; nothing, if nobody was to come back.
    pub(super) fn outcome(self) -> Option<Output> {
        let Self {
            epoch,
            since,
            last_up,
            up,
            failed,
            ..
        } = self;
        let took = last_up.map(|at| at.since(since));
        (up + failed > 0).then_some(Output::Relit {
            epoch,
            took,
            up,
            failed,
        })
    }
}
