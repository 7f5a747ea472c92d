//! When a link is to be woken although nothing happens on it: one list for all links, and one timer.
//!
//! A timer of its own would be a tenth of what an idle link holds. The list is locked when an alarm is set, for a link twice a minute, and
//! when one rings; never for a message.

use super::LinkId;
use super::driver::Env;
use crate::clock::Moment;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The alarms that are set.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    set: Mutex<BTreeSet<(Moment, LinkId)>>,
    /// The first of them is another one, and sooner.
    sooner: Notify,
}

impl Alarms {
    /// Wakes the link's task at `at` or a little later, unless that is cleared before.
    pub(crate) fn set(&self, at: Moment, link: LinkId) {
        let mut set = self.lock();
        set.insert((at, link));
        let is_first = set.first() == Some(&(at, link));
        drop(set);
        if is_first {
            self.sooner.notify_one();
        }
    }

    /// Takes an alarm back. One that has rung is gone already.
    pub(crate) fn clear(&self, at: Moment, link: LinkId) {
        self.lock().remove(&(at, link));
    }

    /// Those that are due, taken from the list; and when the next one is.
    fn take_due(&self, now: Moment) -> (Vec<LinkId>, Option<Moment>) {
        let (mut set, mut due) = (self.lock(), Vec::new());
        while let Some((at, link)) = set.pop_first() {
            if at > now {
                set.insert((at, link));
                return (due, Some(at));
            }
            due.push(link);
        }
        (due, None)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Moment, LinkId)>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes links when their alarms are due. Never ends by itself.
pub(crate) async fn ring(env: Arc<Env>) -> Infallible {
    loop {
        let (due, next) = env.alarms.take_due(env.clock.now());
        for link in due {
            if let Some(shared) = env.vault.get(link) {
                shared.state.wake.wake();
            }
        }
        let timer = async {
            match next {
                Some(at) => env.clock.sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = env.alarms.sooner.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_due_is_taken_in_order_and_what_is_cleared_is_not() {
        let at = |second| Moment::from_start(Duration::from_secs(second));
        let alarms = Alarms::default();
        for (second, link) in [(3, 1), (1, 2), (2, 3), (1, 4), (9, 5)] {
            alarms.set(at(second), LinkId(link));
        }
        alarms.clear(at(2), LinkId(3));
        alarms.clear(at(2), LinkId(1));
        assert_eq!(alarms.take_due(at(0)), (vec![], Some(at(1))));
        let due = [2, 4, 1].map(LinkId).to_vec();
        assert_eq!(alarms.take_due(at(3)), (due, Some(at(9))));
        assert_eq!(alarms.take_due(at(9)), (vec![LinkId(5)], None));
    }
}
