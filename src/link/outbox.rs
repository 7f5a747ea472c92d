//! The bounded queue of messages that wait to leave on one link.
//!
//! A sender waits for room (backpressure) or is told that there is none; a message is never skipped. Room is counted in bytes,
//! so neither a few large nor many empty messages get past the bound (`limits::OUTBOX_BYTES`). A message's number is its place
//! in the link's order; `flushed` waits until that number has been handed to the kernel.

use super::{CloseReason, SendError};
use crate::brontide::FRAME_OVERHEAD;
use crate::limits;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::PoisonError;

#[cfg(pilotlight_loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(all(test, pilotlight_loom))]
use loom_models::{Notify, Semaphore};
#[cfg(not(pilotlight_loom))]
use std::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, pilotlight_loom)))]
use tokio::sync::{Notify, Semaphore};

/// The queue. The link's task takes from it; everybody else puts in.
pub struct Outbox {
    queue: Mutex<Queue>,
    room: Semaphore,
    /// Wakes those who wait for `flushed`.
    progress: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    /// Messages ever queued: the number of the newest.
    queued: u64,
    /// Messages that have left for the kernel, or were refused at the door.
    settled: u64,
    /// The newest of those that were refused at the door. In a box: most links refuse none.
    refused: Option<Box<Refused>>,
    /// Nothing more is taken in; what waits may still leave.
    closing: Option<CloseReason>,
    ended: Option<CloseReason>,
}

/// Messages that were refused at the door: their numbers and types.
#[derive(Default)]
struct Refused(VecDeque<(u64, u16)>);

impl Queue {
    /// Messages that have been taken: the number of the newest of them.
    fn taken(&self) -> u64 {
        self.queued.saturating_sub(self.waiting.len() as u64)
    }
}

/// The place of a queued message in its link's order, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// What [`Outbox::take_unless`] gives.
pub enum Taken {
    /// The oldest message.
    Message(Bytes),
    /// The oldest message may not leave yet.
    Held,
    /// Nothing waits.
    Nothing,
}

/// What [`Outbox::take_many`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Many {
    /// Some messages; the first of them has this place in the link's order, the others follow.
    From(u64),
    /// The oldest message may not leave yet.
    Held,
    /// Nothing waits.
    Nothing,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            room: Semaphore::new(limits::OUTBOX_BYTES),
            progress: Notify::new(),
        }
    }

    /// Queues `message` once there is room. Cancel safe: a cancelled call has queued nothing.
    ///
    /// # Errors
    /// The queue has ended or takes nothing more, or `message` is no BOLT 1 message.
    pub async fn put(&self, message: Bytes) -> Result<Ticket, SendError> {
        let cost = cost(&message)?;
        let Ok(permit) = self.room.acquire_many(cost).await else {
            return Err(self.ended_error());
        };
        permit.forget();
        self.push(message)
    }

    /// Queues `message` if there is room now.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`SendError::Full`].
    pub fn try_put(&self, message: Bytes) -> Result<Ticket, SendError> {
        let cost = cost(&message)?;
        match self.room.try_acquire_many(cost) {
            Ok(permit) => permit.forget(),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(SendError::Full),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(self.ended_error()),
        }
        self.push(message)
    }

    /// The oldest message, whose room is free again from now on; it stays where it is if `hold` says so.
    pub fn take_unless(&self, hold: impl FnOnce(&[u8]) -> bool) -> Taken {
        let mut queue = self.lock();
        if queue.waiting.front().is_some_and(|message| hold(message)) {
            return Taken::Held;
        }
        let Some(message) = queue.waiting.pop_front() else {
            return Taken::Nothing;
        };
        drop(queue);
        self.room
            .add_permits(message.len().saturating_add(limits::OUTBOX_OVERHEAD));
        Taken::Message(message)
    }

    /// Takes messages in order until their frames fill `bytes`, the last of them perhaps beyond it, or until one that `hold` names.
    /// One lock for all of them. Their room is free again from now on.
    pub(crate) fn take_many(
        &self,
        into: &mut Vec<Bytes>,
        bytes: usize,
        hold: impl Fn(&[u8]) -> bool,
    ) -> Many {
        let mut queue = self.lock();
        let first = queue.taken().saturating_add(1);
        let (mut framed, mut room, mut waits_for_leave) = (0_usize, 0_usize, false);
        while framed < bytes {
            waits_for_leave = queue.waiting.front().is_some_and(|message| hold(message));
            let Some(message) = (!waits_for_leave)
                .then(|| queue.waiting.pop_front())
                .flatten()
            else {
                break;
            };
            framed = framed.saturating_add(message.len().saturating_add(FRAME_OVERHEAD));
            room = room.saturating_add(message.len().saturating_add(limits::OUTBOX_OVERHEAD));
            into.push(message);
        }
        drop(queue);
        match (room, waits_for_leave) {
            (0, true) => Many::Held,
            (0, false) => Many::Nothing,
            _ => {
                self.room.add_permits(room);
                Many::From(first)
            }
        }
    }

    /// Whether [`end`](Self::end) has been called.
    pub fn is_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Every message taken so far has left for the kernel or was refused. After the end nothing settles any more: what waited
    /// was dropped.
    pub fn settle(&self) {
        {
            let mut queue = self.lock();
            if queue.ended.is_some() {
                return;
            }
            queue.settled = queue.taken();
        }
        self.progress.notify_waiters();
    }

    /// The message that was taken last does not leave after all: whoever waits for it is told.
    pub fn refuse_taken(&self, kind: u16) {
        let number = self.lock().taken();
        self.refuse(number, kind);
    }

    /// A message that has been taken, the one with this place in the link's order, does not leave after all: whoever waits for it is
    /// told.
    pub(crate) fn refuse(&self, number: u64, kind: u16) {
        let mut queue = self.lock();
        let Refused(refused) = &mut **queue.refused.get_or_insert_default();
        if refused.len() >= limits::REFUSED_TICKETS {
            refused.pop_front();
        }
        refused.push_back((number, kind));
    }

    /// Waits until the message with `ticket` has been handed to the kernel. Cancel safe.
    ///
    /// # Errors
    /// The queue ended first, or the message was refused when its turn came.
    pub async fn flushed(&self, ticket: Ticket) -> Result<(), SendError> {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Listen before looking, or a notification in between is lost.
            progress.as_mut().enable();
            {
                let queue = self.lock();
                if queue.settled >= ticket.0 {
                    let mut refused = queue.refused.iter().flat_map(|refused| &refused.0);
                    let refused = refused.find(|(number, _)| *number == ticket.0);
                    return refused.map_or(Ok(()), |(_, kind)| {
                        Err(SendError::Refused {
                            kind: *kind,
                            rule: "when_it_came_to_it",
                        })
                    });
                }
                if let Some(reason) = queue.ended {
                    return Err(SendError::Ended { reason });
                }
            }
            progress.await;
        }
    }

    /// Takes nothing more in: who wants to send is told `reason`. What waits may still leave.
    pub fn close(&self, reason: CloseReason) {
        self.lock().closing.get_or_insert(reason);
        self.room.close();
    }

    /// Ends the queue: what waits is dropped, who waits is told `reason`. The first reason stays.
    pub fn end(&self, reason: CloseReason) {
        {
            let mut queue = self.lock();
            queue.ended.get_or_insert(reason);
            queue.waiting = VecDeque::new();
        }
        self.room.close();
        self.progress.notify_waiters();
    }

    fn push(&self, message: Bytes) -> Result<Ticket, SendError> {
        let mut queue = self.lock();
        if let Some(reason) = queue.ended.or(queue.closing) {
            return Err(SendError::Ended { reason });
        }
        queue.waiting.push_back(message);
        queue.queued += 1;
        Ok(Ticket(queue.queued))
    }

    fn ended_error(&self) -> SendError {
        let queue = self.lock();
        SendError::Ended {
            reason: queue
                .ended
                .or(queue.closing)
                .unwrap_or(CloseReason::Requested),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a message takes of the queue's room, in bytes.
fn cost(message: &Bytes) -> Result<u32, SendError> {
    let length = message.len();
    if length < 2 || length > usize::from(u16::MAX) {
        return Err(SendError::Length { length });
    }
    u32::try_from(length.saturating_add(limits::OUTBOX_OVERHEAD))
        .map_err(|_| SendError::Length { length })
}

#[cfg(all(test, pilotlight_loom))]
#[path = "outbox_loom.rs"]
mod loom_models;

#[cfg(all(test, not(pilotlight_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn message(number: u16) -> Bytes {
        Bytes::from(number.to_be_bytes().to_vec())
    }

    impl Outbox {
        fn take(&self) -> Option<Bytes> {
            match self.take_unless(|_| false) {
                Taken::Message(message) => Some(message),
                Taken::Held | Taken::Nothing => None,
            }
        }
    }

    #[test]
    fn p2_a_message_that_is_held_keeps_its_place_and_its_room() {
        let outbox = Outbox::new();
        for number in 0..2 {
            outbox.try_put(message(number)).unwrap();
        }
        let room = outbox.room.available_permits();
        assert!(matches!(outbox.take_unless(|_| true), Taken::Held));
        assert_eq!(outbox.room.available_permits(), room);
        assert_eq!(outbox.take().unwrap(), message(0));
    }

    #[test]
    fn p2_many_are_taken_in_order_and_within_their_bytes_and_free_their_room() {
        let outbox = Outbox::new();
        let room = outbox.room.available_permits();
        for number in 0..10 {
            outbox.try_put(message(number)).unwrap();
        }
        let frame = 2 + FRAME_OVERHEAD;
        let mut taken = Vec::new();
        let held = |message: &[u8]| message == [0, 7];
        assert_eq!(outbox.take_many(&mut taken, 2 * frame, held), Many::From(1));
        // The fifth stands beyond the bound.
        assert_eq!(
            outbox.take_many(&mut taken, 2 * frame + 1, held),
            Many::From(3)
        );
        assert_eq!(
            outbox.take_many(&mut taken, 100 * frame, held),
            Many::From(6)
        );
        assert_eq!(taken, (0..7).map(message).collect::<Vec<_>>());
        assert_eq!(outbox.take_many(&mut taken, 100 * frame, held), Many::Held);
        assert_eq!(taken.len(), 7);
        let all = |_: &[u8]| false;
        assert_eq!(
            outbox.take_many(&mut taken, 100 * frame, all),
            Many::From(8)
        );
        assert_eq!(
            outbox.take_many(&mut taken, 100 * frame, all),
            Many::Nothing
        );
        assert_eq!(taken, (0..10).map(message).collect::<Vec<_>>());
        assert_eq!(outbox.room.available_permits(), room);
    }

    #[tokio::test]
    async fn of_many_that_were_taken_the_one_that_was_refused_is_told_so() {
        let outbox = Outbox::new();
        let tickets = [258, 259, 260].map(|kind| outbox.try_put(message(kind)).unwrap());
        let mut taken = Vec::new();
        let Many::From(first) = outbox.take_many(&mut taken, usize::MAX, |_| false) else {
            panic!("nothing was taken");
        };
        outbox.refuse(first + 1, 259);
        outbox.settle();
        for (ticket, refused) in tickets.into_iter().zip([false, true, false]) {
            assert_eq!(outbox.flushed(ticket).await.is_err(), refused);
        }
    }

    #[tokio::test]
    async fn p9_a_full_queue_is_an_error_to_who_will_not_wait_and_a_wait_to_who_will() {
        let outbox = Outbox::new();
        let large = Bytes::from(vec![0; 65_535]);
        let mut queued = 0;
        let refused = loop {
            match outbox.try_put(large.clone()) {
                Ok(_) => queued += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SendError::Full);
        assert_eq!(
            queued,
            limits::OUTBOX_BYTES / (65_535 + limits::OUTBOX_OVERHEAD)
        );
        let mut waiting = Box::pin(outbox.put(large.clone()));
        assert!(futures_poll(&mut waiting).is_none());
        assert!(outbox.take().is_some());
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn p9_empty_messages_are_bounded_too() {
        let outbox = Outbox::new();
        let mut queued = 0;
        while outbox.try_put(message(0)).is_ok() {
            queued += 1;
        }
        assert_eq!(queued, limits::OUTBOX_BYTES / (2 + limits::OUTBOX_OVERHEAD));
    }

    #[tokio::test]
    async fn p2_messages_leave_in_the_order_they_were_queued() {
        let outbox = Outbox::new();
        for number in 0..100 {
            assert_eq!(
                outbox.put(message(number)).await.unwrap(),
                Ticket(u64::from(number) + 1)
            );
        }
        for number in 0..100 {
            assert_eq!(outbox.take().unwrap(), message(number));
        }
        assert!(outbox.take().is_none());
    }

    #[tokio::test]
    async fn flushed_means_handed_to_the_kernel_and_not_only_taken() {
        let outbox = Outbox::new();
        let first = outbox.put(message(1)).await.unwrap();
        let second = outbox.put(message(2)).await.unwrap();
        outbox.take();
        let mut flushed = Box::pin(outbox.flushed(first));
        assert!(futures_poll(&mut flushed).is_none());
        outbox.settle();
        flushed.await.unwrap();
        let mut later = Box::pin(outbox.flushed(second));
        assert!(futures_poll(&mut later).is_none());
        outbox.end(CloseReason::Lapse);
        assert_eq!(
            later.await,
            Err(SendError::Ended {
                reason: CloseReason::Lapse
            })
        );
    }

    #[tokio::test]
    async fn the_end_reaches_who_waits_for_room_and_who_comes_later() {
        let outbox = Outbox::new();
        while outbox.try_put(Bytes::from(vec![0; 65_535])).is_ok() {}
        let mut waiting = Box::pin(outbox.put(Bytes::from(vec![0; 65_535])));
        assert!(futures_poll(&mut waiting).is_none());
        outbox.end(CloseReason::PeerClosed);
        let ended = SendError::Ended {
            reason: CloseReason::PeerClosed,
        };
        assert_eq!(waiting.await, Err(ended.clone()));
        assert_eq!(outbox.try_put(message(1)), Err(ended));
        assert!(outbox.take().is_none());
    }

    #[tokio::test]
    async fn flushed_says_so_when_the_message_was_refused_in_the_end() {
        let outbox = Outbox::new();
        let refused = outbox.put(message(258)).await.unwrap();
        let sent = outbox.put(message(1)).await.unwrap();
        outbox.take();
        outbox.refuse_taken(258);
        outbox.take();
        outbox.settle();
        assert_eq!(
            outbox.flushed(refused).await,
            Err(SendError::Refused {
                kind: 258,
                rule: "when_it_came_to_it"
            })
        );
        outbox.flushed(sent).await.unwrap();
    }

    #[tokio::test]
    async fn a_closing_queue_takes_nothing_in_and_gives_out_what_waits() {
        let outbox = Outbox::new();
        let queued = outbox.put(message(1)).await.unwrap();
        outbox.close(CloseReason::Draining);
        let ended = SendError::Ended {
            reason: CloseReason::Draining,
        };
        assert_eq!(outbox.put(message(2)).await, Err(ended.clone()));
        assert_eq!(outbox.try_put(message(2)), Err(ended));
        assert!(outbox.take().is_some());
        outbox.settle();
        outbox.flushed(queued).await.unwrap();
    }

    #[test]
    fn a_message_that_no_frame_holds_is_refused() {
        let outbox = Outbox::new();
        assert_eq!(
            outbox.try_put(Bytes::from_static(&[0])),
            Err(SendError::Length { length: 1 })
        );
        assert_eq!(
            outbox.try_put(Bytes::from(vec![0; 65_536])),
            Err(SendError::Length { length: 65_536 })
        );
    }

    /// Polls once with a waker that does nothing.
    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
