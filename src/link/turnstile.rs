//! Hands out the [`Places`] of inbound handshakes, and tells whoever loses his.
//!
//! It never waits: a newcomer has his place, or has none, at once.

use super::places::{Entry, PlaceId, Places, Progress};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The places of one supervisor's inbound handshakes.
#[derive(Default)]
pub(crate) struct Turnstile {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    places: Places,
    /// Dropped when a place is lost.
    holders: HashMap<PlaceId, oneshot::Sender<()>>,
}

/// One handshake's place. Given back when it is dropped.
pub(crate) struct Slot {
    turnstile: Arc<Turnstile>,
    id: PlaceId,
    lost: oneshot::Receiver<()>,
}

impl Turnstile {
    /// A place for a connection from `ip`. `None`: all that it might have are taken by handshakes that wait for us.
    pub(crate) fn enter(this: &Arc<Self>, ip: IpAddr) -> Option<Slot> {
        let mut inner = this.lock();
        let Entry::Place { id, instead } = inner.places.enter(ip) else {
            return None;
        };
        if let Some(loser) = instead {
            inner.holders.remove(&loser);
        }
        let (holder, lost) = oneshot::channel();
        inner.holders.insert(id, holder);
        drop(inner);
        Some(Slot {
            turnstile: Arc::clone(this),
            id,
            lost,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Ready when the place is lost.
    pub(crate) async fn lost(&mut self) {
        let _ = (&mut self.lost).await;
    }

    /// What notes how far the handshake is.
    pub(crate) fn progress(&self) -> Ticker {
        Ticker {
            turnstile: Arc::clone(&self.turnstile),
            id: self.id,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.turnstile.lock();
        inner.places.leave(self.id);
        inner.holders.remove(&self.id);
    }
}

/// Notes how far a handshake is.
pub(crate) struct Ticker {
    turnstile: Arc<Turnstile>,
    id: PlaceId,
}

impl Ticker {
    pub(crate) fn note(&self, progress: Progress) {
        self.turnstile.lock().places.note(self.id, progress);
    }
}
