//! The vault: every live link's session secrets, by link, so that they can be counted, aged and wiped from outside its task.
//!
//! What is cached for a peer is the *live session*: sending and receiving key, the two chaining keys, the two nonces. Key
//! rotation needs only these, so a link can run for years without a signer. No cached secret can serve a new handshake (Noise
//! XK has no static-static term); see design.md § 3.

use crate::clock::Moment;
use crate::link::shared::LinkShared;
use crate::link::{CloseReason, Identity, LinkId, Tag};
use crate::signer::Epoch;
use dashmap::DashMap;
use std::sync::Arc;
use std::time::Duration;

/// The live links' sessions. Touched when a link opens and closes, not per message.
#[derive(Default)]
pub(crate) struct Vault {
    sessions: DashMap<LinkId, Arc<LinkShared>>,
    /// Links that were to be closed before they were here: admitted, or still in their handshake.
    early: DashMap<LinkId, CloseReason>,
}

/// How many links of each kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) gossip_only: usize,
    pub(crate) channel_bearing: usize,
    pub(crate) persona: usize,
    /// Age of the oldest session.
    pub(crate) oldest: Duration,
}

impl Vault {
    pub(crate) fn insert(&self, link: &Arc<LinkShared>) {
        let id = link.state.id;
        self.sessions.insert(id, Arc::clone(link));
        // Looked at after it was stored, as `close` looks after it has noted: whoever comes second sees the other.
        if let Some((_, reason)) = self.early.remove(&id) {
            link.state.request_close(reason);
        }
    }

    /// Asks a link to close: now, or as soon as it is here. A link that waits for its peer's `init` must not keep out the one that
    /// shall take its place: each side would wait for the other. `true`: it is here.
    pub(crate) fn close(&self, id: LinkId, reason: CloseReason) -> bool {
        if self.get(id).is_none() {
            self.early.insert(id, reason);
        }
        let Some(link) = self.get(id) else {
            return false;
        };
        self.early.remove(&id);
        link.state.request_close(reason);
        true
    }

    /// The link will never be here.
    pub(crate) fn give_up(&self, id: LinkId) {
        self.early.remove(&id);
    }

    /// Forgets a link that has ended. Its secrets must have been wiped.
    pub(crate) fn remove(&self, id: LinkId) {
        self.sessions.remove(&id);
    }

    pub(crate) fn get(&self, id: LinkId) -> Option<Arc<LinkShared>> {
        self.sessions.get(&id).map(|entry| Arc::clone(&entry))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Arc<LinkShared>> {
        self.sessions.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    pub(crate) fn census(&self, now: Moment) -> Census {
        let mut census = Census::default();
        for entry in &self.sessions {
            let state = &entry.state;
            match (state.identity, state.tag()) {
                (Identity::Persona, _) => census.persona += 1,
                (Identity::Node, Tag::GossipOnly) => census.gossip_only += 1,
                (Identity::Node, Tag::ChannelBearing) => census.channel_bearing += 1,
            }
            census.oldest = census.oldest.max(now.since(state.since));
        }
        census
    }

    /// Tears down every link that was leased under `lapsed` or an earlier session: first all secrets are wiped, then all
    /// connections are reset. Returns how many there were, and how many links live on. Runs after the fence is closed, on the
    /// reaper's thread.
    pub(crate) fn tear_down(&self, lapsed: Epoch) -> (usize, usize) {
        let (doomed, retained): (Vec<_>, Vec<_>) =
            self.all().into_iter().partition(|link| link.state.leased_under().is_some_and(|epoch| epoch <= lapsed));
        for link in &doomed {
            link.wipe();
        }
        for link in &doomed {
            link.reset(CloseReason::Lapse);
        }
        (doomed.len(), retained.len())
    }
}
