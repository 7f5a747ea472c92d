//! The places for admin connections. When all are taken, a newcomer gets that of the connection that has asked for nothing for the
//! longest, so that clients who connect and stay silent keep out nobody who has something to say.
//!
//! A connection is *busy* while a request of its is answered, and, once it has shown a token, until the answer has been read. Only one
//! that is not busy can lose its place.

use crate::limits;
use axum::body::Body;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// All places.
pub(super) struct Seats {
    room: Arc<Semaphore>,
    taken: Mutex<BTreeMap<u64, Weak<Seat>>>,
    /// Counts connections and the times that one fell silent: what is smaller was earlier.
    turns: AtomicU64,
}

/// One connection's place. It is given back when the last handle on it is gone.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    busy: AtomicUsize,
    silent_since: AtomicU64,
    leave: Notify,
    _permit: OwnedSemaphorePermit,
}

/// Keeps a seat while it lives.
pub(super) struct Busy(Arc<Seat>);

impl Seats {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(places)),
            taken: Mutex::default(),
            turns: AtomicU64::new(0),
        })
    }

    /// A place: a free one, or that of who is silent the longest, once it has left. Cancel safe. `None` never comes in practice: it
    /// would mean that the places are closed.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Arc<Seat>> {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
                break permit;
            }
            self.ask_one_to_leave();
            let room = Arc::clone(&self.room).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(limits::ADMIN_PLACE_WAIT, room).await {
                break permit.ok()?;
            }
        };
        let number = self.turn();
        let seat = Arc::new(Seat {
            seats: Arc::clone(self),
            number,
            busy: AtomicUsize::new(0),
            silent_since: AtomicU64::new(number),
            leave: Notify::new(),
            _permit: permit,
        });
        self.taken().insert(number, Arc::downgrade(&seat));
        Some(seat)
    }

    fn ask_one_to_leave(&self) {
        let seats: Vec<Arc<Seat>> = self.taken().values().filter_map(Weak::upgrade).collect();
        let silent = seats.iter().filter(|seat| seat.is_silent());
        let longest = silent.min_by_key(|seat| seat.silent_since.load(Ordering::Relaxed));
        if let Some(seat) = longest {
            seat.leave.notify_one();
        }
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Weak<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Says that a request has come.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    fn is_silent(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    /// Returns once the place is wanted and the connection is silent.
    pub(super) async fn must_leave(&self) {
        loop {
            self.leave.notified().await;
            if self.is_silent() {
                return;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let turn = self.0.seats.turn();
        self.0.silent_since.store(turn, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that keeps its connection's place until it has been read, or given up.
pub(super) fn kept_until_read(response: Response, busy: Busy) -> Response {
    response.map(|body| Body::new(Kept { body, _busy: busy }))
}

struct Kept {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Kept {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;

    /// Whether a future is not ready now.
    async fn waits<F: Future>(future: F) -> bool {
        tokio::pin!(future);
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_gets_the_place_of_who_is_silent_the_longest() {
        let seats = Seats::new(3);
        let first = seats.take().await.unwrap();
        let second = seats.take().await.unwrap();
        let third = seats.take().await.unwrap();
        // The first has asked for something since, and the second is being answered.
        drop(first.busy());
        let answered = second.busy();
        let newcomer = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.take().await.unwrap() }
        });
        third.must_leave().await;
        assert!(waits(first.must_leave()).await && waits(second.must_leave()).await);
        drop(third);
        let _newcomer = newcomer.await.unwrap();
        assert_eq!(seats.taken().len(), 3);

        let another = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.take().await.unwrap() }
        });
        first.must_leave().await;
        drop((first, answered));
        another.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_keeps_the_place_until_it_has_been_read_or_given_up() {
        let seats = Seats::new(1);
        let seat = seats.take().await.unwrap();
        let mut answer = kept_until_read(Response::new(Body::from("whole")), seat.busy());
        assert!(!seat.is_silent(), "it is to be read yet");
        let read = poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(answer.body_mut()), cx));
        assert_eq!(read.await.unwrap().unwrap().into_data().unwrap(), "whole");
        assert!(!seat.is_silent(), "its reader has not let go of it");
        drop(answer);
        assert!(seat.is_silent());
        drop(kept_until_read(
            Response::new(Body::from("never read")),
            seat.busy(),
        ));
        assert!(seat.is_silent());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_busy_keeps_its_place_for_as_long_as_it_is() {
        let seats = Seats::new(1);
        let seat = seats.take().await.unwrap();
        let busy = seat.busy();
        assert!(waits(seats.take()).await);
        assert!(waits(seat.must_leave()).await);
        drop(busy);
        assert!(waits(seats.take()).await, "asks it to leave");
        seat.must_leave().await;
        drop(seat);
        assert!(seats.take().await.is_some());
    }
}
