//! loom's models of the outbox (P2, P9): who queues, who takes, who waits and who ends it, in every order.
//!
//! The queue is the real one with loom's lock. tokio's semaphore and notification are the real ones too: loom takes each of their
//! steps as one, and lets another thread go first before each. A wake-up that is lost is a wait without end, which loom reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Outbox, Taken, Ticket};
use crate::limits;
use crate::link::{CloseReason, SendError};
use bytes::Bytes;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::{AcquireError, SemaphorePermit, TryAcquireError, futures::Notified};

/// tokio's, with a turn for others before each step.
pub(super) struct Semaphore(tokio::sync::Semaphore, AtomicUsize);

impl Semaphore {
    pub(super) fn new(permits: usize) -> Self {
        Self(tokio::sync::Semaphore::new(permits), AtomicUsize::new(0))
    }

    fn turn(&self) -> &tokio::sync::Semaphore {
        self.1.fetch_add(1, Relaxed);
        &self.0
    }

    pub(super) async fn acquire_many(
        &self,
        many: u32,
    ) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.turn().acquire_many(many).await
    }

    pub(super) fn try_acquire_many(
        &self,
        many: u32,
    ) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.turn().try_acquire_many(many)
    }

    pub(super) fn add_permits(&self, many: usize) {
        self.turn().add_permits(many);
    }

    pub(super) fn close(&self) {
        self.turn().close();
    }
}

/// The same.
pub(super) struct Notify(tokio::sync::Notify, AtomicUsize);

impl Notify {
    pub(super) fn new() -> Self {
        Self(tokio::sync::Notify::new(), AtomicUsize::new(0))
    }

    pub(super) fn notified(&self) -> Notified<'_> {
        self.1.fetch_add(1, Relaxed);
        self.0.notified()
    }

    pub(super) fn notify_waiters(&self) {
        self.1.fetch_add(1, Relaxed);
        self.0.notify_waiters();
    }
}

/// Woken by a flag: a waker is called while tokio holds a lock of its own, where loom may not step in.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !flag.0.swap(false, SeqCst) {
            thread::yield_now();
        }
    }
}

/// Bounded to three preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says.
fn model(body: impl Fn(&Arc<Outbox>) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(move || body(&Arc::new(Outbox::new())));
}

fn message(number: u8) -> Bytes {
    Bytes::from(vec![0, number])
}

fn take(outbox: &Outbox) -> Option<u8> {
    match outbox.take_unless(|_| false) {
        Taken::Message(message) => message.get(1).copied(),
        Taken::Held | Taken::Nothing => None,
    }
}

/// As full as it can be.
fn fill(outbox: &Outbox) {
    while outbox.try_put(Bytes::from_static(&[0; 65_535])).is_ok() {}
}

fn ended(reason: CloseReason) -> SendError {
    SendError::Ended { reason }
}

#[test]
fn p2_messages_leave_once_each_and_in_the_order_of_their_tickets() {
    model(|outbox| {
        let senders: Vec<_> = [1, 2]
            .map(|number| {
                let outbox = Arc::clone(outbox);
                thread::spawn(move || (outbox.try_put(message(number)).unwrap(), number))
            })
            .into_iter()
            .collect();
        let mut left: Vec<u8> = take(outbox).into_iter().collect();
        let mut put: Vec<(Ticket, u8)> = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect();
        left.extend(std::iter::from_fn(|| take(outbox)));
        put.sort();
        assert_eq!(
            left,
            put.iter().map(|(_, number)| *number).collect::<Vec<_>>()
        );
        assert_eq!(
            put.iter().map(|(ticket, _)| ticket.0).collect::<Vec<_>>(),
            [1, 2]
        );
    });
}

#[test]
fn p9_nothing_is_taken_in_once_the_queue_has_ended() {
    model(|outbox| {
        let sender = {
            let outbox = Arc::clone(outbox);
            thread::spawn(move || outbox.try_put(message(1)))
        };
        outbox.end(CloseReason::Lapse);
        assert!(take(outbox).is_none(), "it goes on after its end");
        let put = sender.join().unwrap();
        assert!(put.is_ok() || put == Err(ended(CloseReason::Lapse)));
        assert!(
            outbox.is_empty(),
            "what waits after the end is never dropped"
        );
    });
}

#[test]
fn who_waits_for_a_flush_hears_of_it() {
    model(|outbox| {
        let ticket = outbox.try_put(message(1)).unwrap();
        let waiting = {
            let outbox = Arc::clone(outbox);
            thread::spawn(move || wait_for(outbox.flushed(ticket)))
        };
        assert_eq!(take(outbox), Some(1));
        outbox.settle();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn who_waits_for_a_flush_hears_of_the_end_or_of_the_flush_before_it() {
    model(|outbox| {
        let ticket = outbox.try_put(message(1)).unwrap();
        assert_eq!(take(outbox), Some(1));
        let waiting = {
            let outbox = Arc::clone(outbox);
            thread::spawn(move || wait_for(outbox.flushed(ticket)))
        };
        let reaper = {
            let outbox = Arc::clone(outbox);
            thread::spawn(move || outbox.end(CloseReason::Lapse))
        };
        outbox.settle();
        reaper.join().unwrap();
        let heard = waiting.join().unwrap();
        assert!(heard == Ok(()) || heard == Err(ended(CloseReason::Lapse)));
    });
}

#[test]
fn p9_who_waits_for_room_gets_it_when_there_is_some() {
    model(|outbox| {
        fill(outbox);
        let sender = {
            let outbox = Arc::clone(outbox);
            thread::spawn(move || wait_for(outbox.put(Bytes::from_static(&[9; 65_535]))))
        };
        assert_eq!(take(outbox), Some(0));
        let ticket = sender.join().unwrap().unwrap();
        let most = limits::OUTBOX_BYTES / (65_535 + limits::OUTBOX_OVERHEAD);
        assert_eq!(ticket.0, u64::try_from(most + 1).unwrap());
    });
}

#[test]
fn p9_who_waits_for_room_hears_of_the_end() {
    model(|outbox| {
        fill(outbox);
        let sender = {
            let outbox = Arc::clone(outbox);
            thread::spawn(move || wait_for(outbox.put(Bytes::from_static(&[9; 65_535]))))
        };
        outbox.close(CloseReason::Draining);
        outbox.end(CloseReason::Lapse);
        let error = sender.join().unwrap().unwrap_err();
        assert!(error == ended(CloseReason::Draining) || error == ended(CloseReason::Lapse));
    });
}
