//! The vault: every live link's session secrets, by link, so that they can be counted, aged and wiped from outside its task.
//!
//! What is cached for a peer is the *live session*: sending and receiving key, the two chaining keys, the two nonces. Key
//! rotation needs only these, so a link can run for years without a signer. No cached secret can serve a new handshake (Noise
//! XK has no static-static term); see design.md § 3.

use crate::clock::Moment;
use crate::link::shared::{LinkShared, Stage};
use crate::link::{CloseReason, Direction, Identity, LinkId, Tag};
use crate::signer::Epoch;
use dashmap::DashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[cfg(pilotlight_loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(pilotlight_loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// Links whose connections are worth a thread to reset them: a few milliseconds of it.
const CUT_A_THREAD: usize = 256;

/// Most threads that reset connections: they share the kernel's locks with one another.
const CUTTERS_MAX: usize = 4;

/// The live links' sessions. Touched when a link opens and closes, not per message.
#[derive(Default)]
pub(crate) struct Vault {
    sessions: DashMap<LinkId, Arc<LinkShared>>,
    /// Stands for the locks within `DashMap`, which loom does not see.
    #[cfg(pilotlight_loom)]
    shard: loom::sync::Mutex<()>,
    shut: AtomicBool,
}

/// How many links of each kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) gossip_only: usize,
    pub(crate) channel_bearing: usize,
    pub(crate) persona: usize,
    /// Age of the oldest session.
    pub(crate) oldest: Duration,
    /// By tag, direction and identity, in the order in which those are declared.
    by_kind: [[[usize; 2]; 2]; 2],
}

impl Census {
    fn count(&mut self, tag: Tag, direction: Direction, identity: Identity) {
        let links = self
            .by_kind
            .get_mut(tag as usize)
            .and_then(|links| links.get_mut(direction as usize));
        if let Some(links) = links.and_then(|links| links.get_mut(identity as usize)) {
            *links += 1;
        }
    }

    /// How many links there are of one kind.
    pub(crate) fn of(&self, tag: Tag, direction: Direction, identity: Identity) -> usize {
        let links = self
            .by_kind
            .get(tag as usize)
            .and_then(|links| links.get(direction as usize));
        links
            .and_then(|links| links.get(identity as usize))
            .copied()
            .unwrap_or_default()
    }
}

/// What [`Vault::tear_down`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TornDown {
    pub(crate) dropped: usize,
    /// Those of the dropped whose peer is channel-bearing.
    pub(crate) channel_bearing: usize,
    pub(crate) retained: usize,
}

/// Links that are torn down, whose tasks are to be woken: they wait for it. Dropped, it wakes them.
#[must_use]
pub(crate) struct Doomed(Vec<Arc<LinkShared>>);

impl Drop for Doomed {
    fn drop(&mut self) {
        for link in self.0.drain(..) {
            link.state.wake.wake();
        }
    }
}

impl Vault {
    /// `false`: the vault is shut, so nobody will come for this link and it must end itself.
    #[must_use]
    pub(crate) fn insert(&self, link: Arc<LinkShared>) -> bool {
        {
            #[cfg(pilotlight_loom)]
            let _shard = self.shard.lock();
            self.sessions.insert(link.state.id, link);
        }
        // Looked at after the insertion, while `shut` is stored before anybody goes through the sessions: one sees the other.
        !self.shut.load(Ordering::SeqCst)
    }

    /// No link that comes from now on is kept. `false`: none was before either.
    pub(crate) fn shut(&self) -> bool {
        !self.shut.swap(true, Ordering::SeqCst)
    }

    /// Wakes the task of a link, if there is that link.
    pub(crate) fn wake(&self, id: LinkId) {
        if let Some(link) = self.get(id) {
            link.state.wake.wake();
        }
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
        #[cfg(pilotlight_loom)]
        let _shard = self.shard.lock();
        self.sessions
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect()
    }

    pub(crate) fn census(&self, now: Moment) -> Census {
        let mut census = Census::default();
        for entry in self
            .sessions
            .iter()
            .filter(|entry| entry.state.stage() != Stage::Authenticated)
        {
            let state = &entry.state;
            match (state.identity, state.tag()) {
                (Identity::Persona, _) => census.persona += 1,
                (Identity::Node, Tag::GossipOnly) => census.gossip_only += 1,
                (Identity::Node, Tag::ChannelBearing) => census.channel_bearing += 1,
            }
            census.count(state.tag(), state.direction, state.identity);
            census.oldest = census.oldest.max(now.since(state.since));
        }
        census
    }

    /// Tears down every link that was leased under `lapsed` or an earlier session: first all secrets are wiped, then all
    /// connections are reset. Says how many there were, and how many links live on. Runs after the fence is closed, on the
    /// reaper's thread. The tasks are woken when the doomed are let go: thousands that end must not take the processors from whoever
    /// closes the connections.
    pub(crate) fn tear_down(&self, lapsed: Epoch) -> (TornDown, Doomed) {
        let (doomed, retained): (Vec<_>, Vec<_>) = self.all().into_iter().partition(|link| {
            link.state
                .leased_under()
                .is_some_and(|epoch| epoch <= lapsed)
        });
        let doomed = Doomed(doomed);
        for link in &doomed.0 {
            link.wipe();
        }
        cut_all(&doomed.0);
        // Links that wait for a verdict are torn down too, but nobody has heard of them.
        let known = |link: &&Arc<LinkShared>| link.state.stage() != Stage::Authenticated;
        let channel_bearing = |link: &&Arc<LinkShared>| link.state.tag() == Tag::ChannelBearing;
        let dropped = || doomed.0.iter().filter(known);
        let torn_down = TornDown {
            dropped: dropped().count(),
            channel_bearing: dropped().filter(channel_bearing).count(),
            retained: retained.iter().filter(known).count(),
        };
        (torn_down, doomed)
    }
}

/// Resets all connections, on several threads if they are many: a reset costs the kernel some 10 µs. Whoever cannot have a thread does
/// without.
fn cut_all(links: &[Arc<LinkShared>]) {
    let cut = |links: &[Arc<LinkShared>]| {
        for link in links {
            link.cut(CloseReason::Lapse);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads
        .min(links.len() / CUT_A_THREAD)
        .clamp(1, CUTTERS_MAX);
    let (own, others) = links.split_at(links.len().div_ceil(threads));
    thread::scope(|scope| {
        for part in others.chunks(own.len().max(1)) {
            let cutter = thread::Builder::new().name("pilotlight-cutter".into());
            if cutter.spawn_scoped(scope, move || cut(part)).is_err() {
                cut(part);
            }
        }
        cut(own);
    });
}

#[cfg(all(test, pilotlight_loom))]
#[path = "link/vault_loom.rs"]
mod loom_models;
