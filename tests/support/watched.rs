//! State that tasks and handlers change and a test waits on: no sleeps, no polling, and a guard against hanging.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Longer than anything here takes on a crowded machine; it only turns a hang into a failure.
pub(crate) const HANG_GUARD: Duration = Duration::from_secs(60);

/// Some state, and whoever waits for it to become something.
pub(crate) struct Watched<S> {
    state: Mutex<S>,
    changed: watch::Sender<()>,
}

impl<S: Default> Default for Watched<S> {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl<S: Debug> Watched<S> {
    /// Changes the state and tells those who wait.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Looks at the state as it is.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `found` finds something in the state.
    pub(crate) async fn until<R>(&self, what: &str, mut found: impl FnMut(&S) -> Option<R>) -> R {
        let mut changes = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(result) = found(&self.lock()) {
                    return result;
                }
                changes
                    .changed()
                    .await
                    .expect("the sender lives as long as self");
            }
        };
        let Ok(result) = tokio::time::timeout(HANG_GUARD, wait).await else {
            panic!("{what}: not within {HANG_GUARD:?}; {:?}", self.lock())
        };
        result
    }

    /// Waits until `holds`.
    pub(crate) async fn until_true(&self, what: &str, mut holds: impl FnMut(&S) -> bool) {
        self.until(what, |state| holds(state).then_some(())).await;
    }

    fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
