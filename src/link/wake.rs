//! What wakes a link's task: a flag, and the task that waits for it.
//!
//! Half of tokio's `Notify`, for one task only: whoever wakes takes no lock, and who waits holds no place in a list.

use atomic_waker::AtomicWaker;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Wakes one task. A call to [`wake`](Self::wake) that nobody waits for is remembered; more of them count as one.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    is_called: AtomicBool,
    waker: AtomicWaker,
}

impl Wake {
    /// Wakes the task, or, if it does not wait, lets its next wait end at once. The task is held no more until it asks again.
    pub(crate) fn wake(&self) {
        self.is_called.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready if [`wake`](Self::wake) was called since this was last ready. The task that asked last is the one that is woken.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_called.swap(false, Ordering::AcqRel) {
            // A call between the look before and the waker's place would be missed: registered first, then looked again.
            self.waker.register(context.waker());
            if !self.is_called.swap(false, Ordering::AcqRel) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Waits for [`wake`](Self::wake). Cancel safe.
    pub(crate) async fn woken(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Whether the task is held in memory by what would wake it. Afterwards it is not.
    #[cfg(test)]
    pub(crate) fn takes_task(&self) -> bool {
        self.waker.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake as WakeTask, Waker};
    use std::time::Duration;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl WakeTask for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_call_ends_one_wait_whether_it_comes_before_or_after_it() {
        let (wake, count) = (Wake::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        wake.wake();
        wake.wake();
        assert!(wake.poll(&context).is_ready());
        assert!(wake.poll(&context).is_pending(), "two calls are one");
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        wake.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(wake.poll(&context).is_ready());
    }

    #[test]
    fn a_task_that_was_woken_is_held_no_more() {
        let (wake, count) = (Wake::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        assert!(wake.poll(&Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 2);
        wake.wake();
        assert!(!wake.takes_task());
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn no_call_is_missed_between_threads() {
        let wake = Arc::new(Wake::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let rounds = 10_000;
        let (ask, asked) = std::sync::mpsc::sync_channel(0);
        let caller = {
            let wake = Arc::clone(&wake);
            std::thread::spawn(move || {
                while asked.recv().is_ok() {
                    wake.wake();
                }
            })
        };
        runtime.block_on(async {
            for round in 0..rounds {
                ask.send(()).unwrap();
                let woken = tokio::time::timeout(Duration::from_secs(60), wake.woken());
                assert!(woken.await.is_ok(), "hung in round {round}");
            }
        });
        drop(ask);
        assert!(caller.join().is_ok());
    }
}
