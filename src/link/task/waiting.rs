//! The waiting half of a link's task: what it gives back before it waits, and what it waits for.
//!
//! Most links wait most of the time: what a task holds while it waits is what a link costs.

use super::LinkTask;
use crate::link::CloseReason;
use crate::link::buffers;
use crate::link::delivery::Room;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};

/// What a link has waited for.
struct Ready {
    /// The socket has something to read, or its end.
    readable: bool,
    /// The place in the inbox.
    room: Option<Room>,
}

impl LinkTask {
    /// Waits until there is something to do, and does what the next round does not.
    pub(super) async fn wait(&mut self) -> Result<(), CloseReason> {
        self.rest_if_idle();
        self.set_alarm();
        let ready = self.until_ready().await?;
        if let Some(room) = ready.room {
            self.place = None;
            if let Some(delivery) = self.pending.pop_front() {
                self.env().inbox.send(delivery, room.ok());
            }
        }
        if ready.readable {
            // Reset: thousands of links must not each take a buffer to read nothing while others are still to be reset.
            if self.state().close_requested() == Some(CloseReason::Lapse) {
                return Err(CloseReason::Lapse);
            }
            self.read_some().await?;
        }
        Ok(())
    }

    /// Ready when anything is. All that is ready is looked at, so that nothing keeps the rest waiting: a busy outbox must not keep the
    /// link from reading, nor the other way round. Only the alarm may wait: each round looks at the time.
    ///
    /// The socket is asked by `poll_…_ready`, whose wakers are the runtime's: a link that waits holds none of its own.
    async fn until_ready(&mut self) -> Result<Ready, CloseReason> {
        let (reads, writes) = (self.listens(), !self.write.is_empty());
        let mut woken = pin!(self.shared.state.wake.notified());
        let (socket, place, alarm) = (&self.shared.socket, &mut self.place, &mut self.alarm);
        poll_fn(|context| {
            let mut any = woken.as_mut().poll(context).is_ready();
            let mut readable = false;
            if reads && let Poll::Ready(result) = socket.poll_read_ready(context) {
                result.map_err(|_| CloseReason::Io)?;
                (any, readable) = (true, true);
            }
            if writes && let Poll::Ready(result) = socket.poll_write_ready(context) {
                result.map_err(|_| CloseReason::Io)?;
                any = true;
            }
            // After what may fail: a place that was had is not asked again.
            let room = match place {
                Some(place) => place.as_mut().poll(context),
                None => Poll::Pending,
            };
            any |= room.is_ready();
            if !any {
                let Some((_, sleep)) = alarm else {
                    return Poll::Pending;
                };
                ready!(sleep.as_mut().poll(context));
                *alarm = None;
            }
            let room = match room {
                Poll::Ready(room) => Some(room),
                Poll::Pending => None,
            };
            Poll::Ready(Ok(Ready { readable, room }))
        })
        .await
    }

    /// An idle link holds no buffer and no key object.
    fn rest_if_idle(&mut self) {
        if self.write.is_empty() && self.read.is_empty() && self.pending.is_empty() {
            buffers::done_reading(std::mem::take(&mut self.read));
            buffers::done_writing(std::mem::take(&mut self.write));
            buffers::done_with_deliveries(std::mem::take(&mut self.pending));
            self.shared.session().rest();
        }
        // Rare, and an idle link keeps no room for them.
        if self.control.is_empty() {
            self.control = VecDeque::new();
        }
        if self.pongs.is_empty() {
            self.pongs = VecDeque::new();
        }
    }

    /// The timer is set anew only when it would ring too late: most messages push the deadline back, and the alarm then finds
    /// nothing due and is set again.
    fn set_alarm(&mut self) {
        let deadline = if self.deaf {
            self.machine.age_deadline()
        } else {
            Some(self.machine.deadline())
        };
        let answer_by = self.answer_by().filter(|_| !self.deaf);
        let ours = self.leave_by().into_iter().chain(answer_by);
        let deadline = deadline.into_iter().chain(ours).min();
        let Some(deadline) = deadline else {
            self.alarm = None;
            return;
        };
        if self.alarm.as_ref().is_none_or(|(at, _)| *at > deadline) {
            self.alarm = Some((deadline, self.env().clock.sleep_until(deadline)));
        }
    }
}
