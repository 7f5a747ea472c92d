//! The sending half of a link's task: from the queues through the cipher and the gate to the kernel, and a link's last words.
//!
//! The order is pongs, our own messages, the node's. A message of the node meets the firewall here for the last time.

use super::{Ending, LinkTask, at_hand};
use crate::clock::Moment;
use crate::limits;
use crate::link::buffers;
use crate::link::delivery::Delivery;
use crate::link::driver::Report;
use crate::link::firewall::Outbound;
use crate::link::machine::Ambient;
use crate::link::outbox::Many;
use crate::link::shared::{LinkState, Written};
use crate::link::{CloseReason, Direction};
use crate::telemetry::Telemetry;
use crate::wire::{MessageType, Pong};
use bytes::Buf;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::coop::consume_budget;

/// Write buffers filled and flushed before the socket is read again: a quarter of a megabyte, some tenths of a millisecond.
const BUFFERS_A_ROUND: usize = 4;

impl LinkTask {
    /// Encrypts and writes until nothing waits, the kernel takes no more, or it is the socket's turn to be read.
    pub(super) async fn pump_out(&mut self) -> Result<(), CloseReason> {
        for _ in 0..BUFFERS_A_ROUND {
            if !self.has_to_write() {
                let filled = self.fill().await;
                self.settle_counts();
                filled?;
                if !self.has_to_write() {
                    return Ok(());
                }
            }
            if !self.flush()? {
                return Ok(());
            }
            self.state().outbox.settle();
        }
        self.state().wake.wake();
        Ok(())
    }

    /// Encrypts what waits into the write buffer, up to its bound: pongs, then our own messages, then the node's.
    async fn fill(&mut self) -> Result<(), CloseReason> {
        while self.waits_to_be_written() < limits::WRITE_BUFFER {
            let work = self.work();
            if let Some(bytes) = work.pongs.pop_front() {
                self.seal(&Pong { ignored: bytes }.encode())?;
            } else if let Some(message) = work.control.pop_front() {
                self.seal(&message)?;
            } else {
                match self.seal_some()? {
                    Many::From(_) => {}
                    Many::Held if self.ending == Ending::Quick => break,
                    Many::Held => Box::pin(self.promote()).await?,
                    Many::Nothing => break,
                }
            }
        }
        if !self.has_to_write() {
            // All that was taken has been refused.
            self.state().outbox.settle();
        }
        Ok(())
    }

    /// Bytes of ciphertext that the kernel has not taken yet.
    fn waits_to_be_written(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.write.len())
    }

    /// Encrypts the node's next messages, as many as the write buffer takes. Its first channel message is held until the peer is on
    /// record as channel-bearing. Without a wait: all that is taken from the queue is in the buffer, or refused, when it returns.
    fn seal_some(&mut self) -> Result<Many, CloseReason> {
        let ambient = self.ambient();
        let held = |message: &[u8]| {
            !self.on_record && self.machine.send(ambient, message) == Outbound::PassWithLease
        };
        let room = limits::WRITE_BUFFER.saturating_sub(self.waits_to_be_written());
        let mut messages = buffers::messages();
        let taken = self.state().outbox.take_many(&mut messages, room, held);
        let mut sealed = Ok(());
        if let Many::From(first) = taken {
            for (message, number) in messages.drain(..).zip(first..) {
                sealed = self.seal_from_node(ambient.now, &message, number);
                if sealed.is_err() {
                    break;
                }
            }
        }
        buffers::done_with_messages(messages);
        sealed.map(|()| taken)
    }

    /// The firewall's last word on a message of the node: the mode may have changed since it was queued.
    fn seal_from_node(
        &mut self,
        now: Moment,
        message: &[u8],
        number: u64,
    ) -> Result<(), CloseReason> {
        let ambient = Ambient {
            now,
            signer_away: self.signer_away(),
        };
        let kind = MessageType::of(message).unwrap_or(MessageType(0));
        let allowed = match self.machine.send(ambient, message) {
            Outbound::Pass => true,
            Outbound::PassWithLease => self.on_record && self.take_lease().is_ok(),
            Outbound::Refuse(_) => false,
        };
        if allowed {
            if self.machine.would_refuse(ambient, message) {
                Telemetry::count_refused(kind.label(), "would_not_send");
            }
            return self.seal(message);
        }
        if self.state().dead_scope().is_some() {
            // Not refused but ended: whoever waits for it to be flushed must not hear that it was.
            return Err(CloseReason::Lapse);
        }
        self.state().outbox.refuse(number, kind.0);
        self.refused(kind, "not_sent");
        Ok(())
    }

    /// The node speaks BOLT 2 to this peer, so it says that the peer bears a channel: on record before the first byte leaves.
    /// The message waits in the queue; what the node was told of the peer before may still be on its way into the book too.
    async fn promote(&mut self) -> Result<(), CloseReason> {
        let (recorded, answer) = tokio::sync::oneshot::channel();
        let peer = self.state().peer;
        self.env().report(Report::Promote { peer, recorded }).await;
        let shared = Arc::clone(&self.shared);
        let env = Arc::clone(self.env());
        let deadline = env
            .clock
            .sleep_until(env.clock.now().after(limits::BOOK_DEADLINE));
        let recorded = tokio::select! {
            biased;
            answer = answer => matches!(answer, Ok(Ok(()))),
            // A book that hangs has not recorded it.
            () = deadline => false,
            reason = must_not_wait(&shared.state, self.ending) => return Err(reason),
        };
        // Whatever else the task was woken for meanwhile is looked at in the next round.
        shared.state.wake.wake();
        if recorded {
            self.on_record = true;
            return Ok(());
        }
        // Nothing that is queued may leave: not this message, and none after it in its place.
        self.state().outbox.end(CloseReason::Book);
        Err(CloseReason::Book)
    }

    fn seal(&mut self, message: &[u8]) -> Result<(), CloseReason> {
        let work = at_hand(&mut self.work);
        if work.write.capacity() == 0 {
            work.write = buffers::to_write();
        }
        let mut session = self.shared.session();
        let (before, _) = session.rotations();
        let sealed = session.seal(message, &mut work.write);
        let (sent, _) = session.rotations();
        drop(session);
        if sealed.is_err() {
            return Err(CloseReason::Transport);
        }
        let kind = MessageType::of(message).unwrap_or(MessageType(0));
        work.tally
            .count(Direction::Outbound, kind.plane(), message.len());
        if sent > before {
            self.rotated(Direction::Outbound, sent - before);
        }
        Ok(())
    }

    /// Hands the write buffer to the kernel. `false`: the kernel takes no more for now.
    fn flush(&mut self) -> Result<bool, CloseReason> {
        let write = &mut at_hand(&mut self.work).write;
        while !write.is_empty() {
            match self.shared.write(write) {
                Written::Bytes(count) => write.advance(count),
                Written::WouldBlock => return Ok(false),
                Written::Fenced => return Err(CloseReason::Lapse),
                Written::Broken => return Err(CloseReason::Io),
            }
        }
        Ok(true)
    }

    /// The link's last words: flushes what may still leave, and hands back what the node has not received yet.
    pub(crate) async fn finish(mut self, reason: CloseReason) -> VecDeque<Delivery> {
        if !reason.is_abortive() {
            let patient = matches!(
                reason,
                CloseReason::Draining
                    | CloseReason::Requested
                    | CloseReason::Removed
                    | CloseReason::SessionAge
                    | CloseReason::Demoted
            );
            self.ending = if patient {
                Ending::Patient
            } else {
                Ending::Quick
            };
            if !self.flush_last(reason).await {
                self.shared.reset(reason);
            }
        }
        let work = self.work.as_mut();
        work.map(|work| std::mem::take(&mut work.pending))
            .unwrap_or_default()
    }

    /// A patient end waits for the kernel to take all that is queued; any other writes what it takes at once. `false`: the peer
    /// does not read, and the time is up.
    async fn flush_last(&mut self, reason: CloseReason) -> bool {
        let env = Arc::clone(self.env());
        let deadline = async {
            if reason == CloseReason::Draining {
                // A drain has one deadline for all links. The supervisor resets and counts those that overrun it.
                std::future::pending::<()>().await;
            } else {
                env.clock
                    .sleep_until(env.clock.now().after(limits::DRAIN_DEADLINE))
                    .await;
            }
        };
        let shared = Arc::clone(&self.shared);
        let flush = async {
            loop {
                consume_budget().await;
                if self.pump_out().await.is_err() || self.ending != Ending::Patient {
                    return;
                }
                if !self.has_to_write() && shared.state.outbox.is_empty() {
                    return;
                }
                if shared.socket.writable().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = flush => true,
            () = deadline => false,
        }
    }
}

/// Ready when a book that hangs must not hold up the link's end: when it is asked to close; in its last words, when it is reset.
async fn must_not_wait(state: &LinkState, ending: Ending) -> CloseReason {
    loop {
        if let Some(reason) = state
            .close_requested()
            .filter(|_| ending == Ending::No || state.outbox.is_ended())
        {
            return reason;
        }
        state.wake.woken().await;
    }
}
