//! Looking for gossip peers that were not there: the part of [`SupervisorMachine`] that dials some of them before their wait is over, while
//! the floor is short and nobody else is left to be dialled for it.
//!
//! ```text
//!  bench empty, floor short ──▶ first of the gone whose half minute is over ──▶ dialled, at most one a second of all of them
//! ```
//!
//! A backoff is for a peer that is away by itself. When the network was away, all peers have failed often, and each would be waited for long
//! after it is back. Whoever has turned a persona away is not looked for: he must be left alone for as long as he was told. Pure, as the
//! machine is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::floor::Floor;
use super::machine::{Failure, SupervisorMachine};
use crate::clock::Moment;
use crate::limits;
use crate::link::{CloseReason, LinkId};
use crate::node_id::NodeId;
use std::time::Duration;

impl Floor {
    /// When the next of those who were not there is looked for; `None` while the floor is not short, or while somebody else can be dialled
    /// for it.
    pub(super) fn seeks_at(&self) -> Option<Moment> {
        if !self.is_short() || !self.bench.is_empty() {
            return None;
        }
        let (from, _) = self.gone.first()?;
        let next = self.sought_at.map(|at| at.after(limits::FLOOR_SEEKS_EVERY));
        Some(next.map_or(*from, |next| next.max(*from)))
    }

    /// Whose turn it is to be looked for.
    pub(super) fn seek(&mut self, now: Moment) -> Option<NodeId> {
        self.seeks_at().filter(|at| *at <= now)?;
        self.sought_at = Some(now);
        self.gone.first().map(|(_, id)| *id)
    }
}

impl SupervisorMachine {
    /// When the absence of the signer has lasted long enough for personas to dial, until it has; from then on, when the floor next looks for
    /// a peer that was not there. At once, while nothing has been heard since the start: the absence begins then, even if nobody says
    /// anything.
    pub fn floor_due(&self) -> Option<Moment> {
        if !self.live && !self.draining && !self.floor.has_begun() {
            return Some(Moment::START);
        }
        let has_place = self.dialing < limits::DIALS_IN_FLIGHT;
        let seeks_at = || self.floor.seeks_at().filter(|_| has_place);
        self.floor.starts_at().or_else(seeks_at)
    }

    /// What the end of a persona's link says of its peer; `None`: nothing. Who had taken the link and then went away has not refused it.
    pub(super) fn persona_failure(
        &self,
        now: Moment,
        link: LinkId,
        reason: CloseReason,
    ) -> Option<Failure> {
        if reason.is_ours() {
            let is_meant = matches!(reason, CloseReason::Persona | CloseReason::Promoted);
            return (!is_meant).then_some(Failure::Ours);
        }
        let peer = self.owner(link).and_then(|id| self.peers.get(&id));
        let up_since = peer.and_then(|peer| peer.persona?.up_since);
        let lived = up_since.map_or(Duration::ZERO, |since| now.since(since));
        Some(if has_left(lived, reason) {
            Failure::Unreachable
        } else {
            Failure::Handshake
        })
    }
}

/// Whether a peer whose link has lived so long and has ended so is only not there any more.
pub(super) fn has_left(lived: Duration, reason: CloseReason) -> bool {
    let left = matches!(
        reason,
        CloseReason::PeerClosed | CloseReason::Io | CloseReason::PongTimeout
    );
    left && lived >= limits::PERSONA_TAKEN
}
