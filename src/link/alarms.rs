//! When a link is to be woken although nothing happens on it: one list for all links, and one timer.
//!
//! A timer of its own would be a tenth of what an idle link holds. The list is locked when an alarm is set, for a link twice a minute, and
//! when one rings; never for a message.

use super::LinkId;
use crate::clock::{Clock, Moment};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The alarms that are set: a link has one at most, and takes it back when it ends.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    set: Mutex<BTreeSet<(Moment, LinkId)>>,
    /// The first of them is another one, and sooner.
    sooner: Notify,
}

impl Alarms {
    /// Lets the link be woken at `at` or a little later, unless that is cleared before.
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

    /// How many are set.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Moment, LinkId)>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes links when their alarms are due. Never ends by itself.
pub(crate) async fn ring(alarms: &Alarms, clock: &dyn Clock, wake: impl Fn(LinkId)) -> Infallible {
    loop {
        // Taken before they are woken: a link sets its next alarm once it sees that this one has rung.
        let (due, next) = alarms.take_due(clock.now());
        due.into_iter().for_each(&wake);
        let timer = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = alarms.sooner.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::ManualClock;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::mpsc;

    fn at(second: u64) -> Moment {
        Moment::from_start(Duration::from_secs(second))
    }

    #[tokio::test]
    async fn p9_links_are_woken_at_their_alarms_and_one_that_is_set_sooner_is_not_late() {
        let (alarms, clock) = (Arc::new(Alarms::default()), ManualClock::new());
        let (woken, mut wakes) = mpsc::unbounded_channel();
        let ringing = {
            let (alarms, clock) = (Arc::clone(&alarms), clock.clone());
            tokio::spawn(
                async move { ring(&alarms, &clock, |link| woken.send(link).unwrap()).await },
            )
        };
        alarms.set(at(10), LinkId(1));
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        alarms.set(at(4), LinkId(2));
        alarms.set(at(5), LinkId(3));
        alarms.clear(at(5), LinkId(3));
        clock.advance(Duration::from_secs(4));
        assert_eq!(wakes.recv().await, Some(LinkId(2)));
        // Set anew by a link that was woken, and due already.
        alarms.set(at(4), LinkId(2));
        assert_eq!(wakes.recv().await, Some(LinkId(2)));
        clock.advance(Duration::from_secs(6));
        assert_eq!(wakes.recv().await, Some(LinkId(1)));
        assert!(wakes.is_empty());
        ringing.abort();
    }

    #[test]
    fn what_is_due_is_taken_in_order_and_what_is_cleared_is_not() {
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
