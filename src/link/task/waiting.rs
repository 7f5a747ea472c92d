//! The waiting half of a link's task: what it gives back before it waits, and what it waits for.
//!
//! Most links wait most of the time: what a task holds while it waits is what a link costs.

use super::LinkTask;
use crate::link::CloseReason;
use crate::link::buffers;
use crate::link::delivery::Room;
use std::future::poll_fn;
use std::task::{Context, Poll};

/// What has ended a wait, if it is not a place in the inbox or room in the kernel.
struct Ready {
    /// The task was woken.
    woken: bool,
    /// The socket has something to read, or its end.
    readable: bool,
}

impl LinkTask {
    /// Waits until there is something to do, and does what the next round does not.
    pub(super) async fn wait(&mut self) -> Result<(), CloseReason> {
        self.rest_if_idle();
        self.set_alarm();
        let ready = poll_fn(|context| self.poll_ready(context)).await?;
        if !ready.readable {
            return Ok(());
        }
        if self.state().close_requested() == Some(CloseReason::Lapse) {
            // At rest, reset, and not woken for it yet: thousands of links must not take the processors from whoever is still resetting others, who
            // wakes all of them when it is done.
            if !ready.woken {
                self.state().wake.woken().await;
            }
            return Err(CloseReason::Lapse);
        }
        self.read_some().await
    }

    /// Ready when anything is. All that is ready is looked at, so that nothing keeps the rest waiting: a busy outbox must not keep the
    /// link from reading, nor the other way round.
    ///
    /// Each is asked by a call that keeps nothing between calls: a future for each would be held by every link that waits.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<Ready, CloseReason>> {
        let socket = &self.shared.socket;
        let woken = self.shared.state.wake.poll(context).is_ready();
        let (mut any, mut readable) = (woken, false);
        if self.listens()
            && let Poll::Ready(result) = socket.poll_read_ready(context)
        {
            result.map_err(|_| CloseReason::Io)?;
            (any, readable) = (true, true);
        }
        if self.has_to_write()
            && let Poll::Ready(result) = socket.poll_write_ready(context)
        {
            result.map_err(|_| CloseReason::Io)?;
            any = true;
        }
        if let Some(place) = &mut self.place
            && let Poll::Ready(room) = place.as_mut().poll(context)
        {
            any = true;
            self.fill_place(room);
        }
        if any {
            Poll::Ready(Ok(Ready { woken, readable }))
        } else {
            Poll::Pending
        }
    }

    /// There is the place in the inbox that was waited for.
    fn fill_place(&mut self, room: Room) {
        self.place = None;
        if let Some(delivery) = self.work().pending.pop_front() {
            self.env().inbox.send(delivery, room.ok());
        }
    }

    /// An idle link holds no workspace, no buffer and no key object.
    fn rest_if_idle(&mut self) {
        if let Some(work) = self.work.take_if(|work| work.is_empty()) {
            buffers::done_with_workspace(work);
            self.shared.session().rest();
        }
    }

    /// The alarm is set anew only when it would ring too late: most messages push the deadline back, and the alarm then finds
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
            self.clear_alarm();
            return;
        };
        let has_rung = |at| at <= self.now();
        if self.alarm.is_none_or(|at| at > deadline || has_rung(at)) {
            self.clear_alarm();
            self.alarm = Some(deadline);
            self.env().alarms.set(deadline, self.state().id);
        }
    }

    /// Takes the alarm back, if there is one.
    pub(super) fn clear_alarm(&mut self) {
        if let Some(at) = self.alarm.take() {
            self.env().alarms.clear(at, self.state().id);
        }
    }
}
