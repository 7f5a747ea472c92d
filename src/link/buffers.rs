//! What links have done with, kept by each thread for the next link that has something to do: an idle link holds no buffer and no
//! workspace, and a busy one need not ask the allocator for each batch.
//!
//! What a link has read is handed on as slices of its buffer. Such a buffer can be used again when the last slice is gone: it is looked
//! at when somebody wants one. No lock: each thread has its own. Bounded: some buffers a thread, none larger than a frame needs.

use super::delivery::Delivery;
use crate::brontide::MAX_FRAME_LEN;
use crate::limits;
use crate::telemetry::Tally;
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::VecDeque;

/// Buffers that a thread keeps of either kind. A read whose messages wait for the node takes another: these are those of some batches.
const KEPT: usize = 16;

/// Workspaces that a thread keeps: it works for one link at a time, and one whose work cannot be done yet holds on to its own.
const WORKSPACES_KEPT: usize = 4;

/// Largest buffer that is kept: what one link may have gathered to write, with a frame of the largest size above it, as it grows by
/// doubling.
const KEPT_MAX: usize = 2 * (limits::WRITE_BUFFER + MAX_FRAME_LEN);

/// How many of them are looked at for one that is free, and how often one may be found in use: then it is let go.
const LOOKS: usize = 4;

/// Room of a new buffer to read into: a read, and what was left of the one before.
pub(super) const READ_BUFFER: usize = 2 * limits::READ_CHUNK;

/// What a link's task has at hand while it has something to do.
#[derive(Default)]
pub(super) struct Workspace {
    /// Ciphertext that has been read, up to one partial frame after each batch.
    pub(super) read: BytesMut,
    /// Ciphertext that is not in the kernel yet.
    pub(super) write: BytesMut,
    /// Pongs that are due: their lengths. Ahead of everything else.
    pub(super) pongs: VecDeque<u16>,
    /// Our own messages (`init`, pings, answers, warnings): ahead of the node's.
    pub(super) control: VecDeque<Vec<u8>>,
    /// What was read and waits for room in the inbox.
    pub(super) pending: VecDeque<Delivery>,
    /// Messages that are not in the counters yet.
    pub(super) tally: Tally,
}

impl Workspace {
    /// Whether nothing lies here that is still to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.read.is_empty()
            && self.write.is_empty()
            && self.pongs.is_empty()
            && self.control.is_empty()
            && self.pending.is_empty()
            && self.tally.is_empty()
    }
}

#[derive(Default)]
#[expect(
    clippy::vec_box,
    reason = "a link holds its workspace in a box: it goes back and forth, and does not move"
)]
struct Spare {
    workspaces: Vec<Box<Workspace>>,
    read: VecDeque<(BytesMut, usize)>,
    write: VecDeque<(BytesMut, usize)>,
    frames: Vec<BytesMut>,
    messages: Vec<Bytes>,
    deliveries: VecDeque<Delivery>,
}

thread_local!(static SPARE: RefCell<Spare> = RefCell::default());

/// An empty workspace.
pub(super) fn workspace() -> Box<Workspace> {
    with(|spare| spare.workspaces.pop())
        .flatten()
        .unwrap_or_default()
}

/// Gives a workspace back, emptied; its buffers go where each is kept.
pub(super) fn done_with_workspace(mut work: Box<Workspace>) {
    let Workspace {
        read,
        write,
        pending,
        ..
    } = std::mem::take(&mut *work);
    done_reading(read);
    done_writing(write);
    done_with_deliveries(pending);
    with(|spare| {
        if spare.workspaces.len() < WORKSPACES_KEPT {
            spare.workspaces.push(work);
        }
    });
}

/// An empty buffer with room for `least` bytes or more, to read into.
pub(super) fn to_read(least: usize) -> BytesMut {
    with(|spare| take(&mut spare.read, least))
        .flatten()
        .unwrap_or_else(|| BytesMut::with_capacity(least.max(READ_BUFFER)))
}

/// An empty buffer to write from; it grows as it must.
pub(super) fn to_write() -> BytesMut {
    with(|spare| take(&mut spare.write, 1))
        .flatten()
        .unwrap_or_else(|| BytesMut::with_capacity(limits::READ_CHUNK))
}

/// An empty list of frames.
pub(super) fn frames() -> Vec<BytesMut> {
    with(|spare| std::mem::take(&mut spare.frames)).unwrap_or_default()
}

/// Gives a buffer back that was read into; slices of it may live on.
pub(super) fn done_reading(buffer: BytesMut) {
    with(|spare| keep(&mut spare.read, buffer));
}

/// Gives a buffer back that was written from.
pub(super) fn done_writing(buffer: BytesMut) {
    with(|spare| keep(&mut spare.write, buffer));
}

/// Gives a list of frames back, emptied.
pub(super) fn done_with_frames(mut frames: Vec<BytesMut>) {
    frames.clear();
    with(|spare| spare.frames = frames);
}

/// An empty list of messages.
pub(super) fn messages() -> Vec<Bytes> {
    with(|spare| std::mem::take(&mut spare.messages)).unwrap_or_default()
}

/// Gives a list of messages back, emptied.
pub(super) fn done_with_messages(mut messages: Vec<Bytes>) {
    messages.clear();
    with(|spare| spare.messages = messages);
}

/// An empty queue of deliveries.
pub(super) fn deliveries() -> VecDeque<Delivery> {
    with(|spare| std::mem::take(&mut spare.deliveries)).unwrap_or_default()
}

/// Gives a queue of deliveries back, emptied. One without room is not worth the one that is kept.
pub(super) fn done_with_deliveries(mut deliveries: VecDeque<Delivery>) {
    deliveries.clear();
    if deliveries.capacity() > 0 {
        with(|spare| spare.deliveries = deliveries);
    }
}

/// `None` at the end of a thread, whose buffers are gone already.
fn with<T>(work: impl FnOnce(&mut Spare) -> T) -> Option<T> {
    SPARE
        .try_with(|spare| {
            spare
                .try_borrow_mut()
                .ok()
                .map(|mut spare| work(&mut spare))
        })
        .ok()
        .flatten()
}

fn take(spare: &mut VecDeque<(BytesMut, usize)>, least: usize) -> Option<BytesMut> {
    for _ in 0..LOOKS {
        let (mut buffer, looks) = spare.pop_front()?;
        if buffer.try_reclaim(least) {
            return Some(buffer);
        }
        if looks < LOOKS {
            spare.push_back((buffer, looks + 1));
        }
    }
    None
}

fn keep(spare: &mut VecDeque<(BytesMut, usize)>, mut buffer: BytesMut) {
    buffer.clear();
    // One without room is new, or has been handed on to its last byte.
    let is_usable = buffer.try_reclaim(1) && buffer.capacity() <= KEPT_MAX;
    if is_usable && spare.len() < KEPT {
        spare.push_back((buffer, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    #[test]
    fn a_buffer_is_used_again_when_its_last_slice_is_gone_and_not_before() {
        let mut buffer = to_read(100);
        let room = buffer.capacity();
        buffer.extend_from_slice(b"a message and the next");
        let message = buffer.split_to(9).freeze();
        let memory = message.as_ptr();
        done_reading(buffer);
        let other = to_read(room);
        assert_ne!(other.as_ptr(), memory, "a slice of it lives");
        assert_eq!(&*message, b"a message");
        drop(message);
        let again = to_read(room);
        assert_eq!((again.as_ptr(), again.capacity()), (memory, room));
        assert!(again.is_empty());
    }

    #[test]
    fn what_was_written_to_its_last_byte_leaves_a_whole_buffer() {
        let mut buffer = to_write();
        let room = buffer.capacity();
        buffer.resize(room, 7);
        buffer.advance(room);
        assert_eq!(buffer.capacity(), 0);
        done_writing(buffer);
        assert_eq!(with(|spare| spare.write.len()), Some(1));
        let again = to_write();
        assert_eq!((again.len(), again.capacity()), (0, room));
    }

    #[test]
    fn p9_what_a_thread_keeps_is_bounded_in_number_and_in_size() {
        for _ in 0..3 * KEPT {
            done_writing(BytesMut::with_capacity(100));
            done_writing(BytesMut::with_capacity(KEPT_MAX + 1));
            done_writing(BytesMut::new());
        }
        let kept = with(|spare| {
            let sizes = spare.write.iter().map(|(buffer, _)| buffer.capacity());
            (spare.write.len(), sizes.max())
        });
        assert_eq!(kept, Some((KEPT, Some(100))));
    }

    #[test]
    fn one_that_stays_in_use_is_let_go() {
        let mut buffer = to_read(100);
        buffer.extend_from_slice(b"kept");
        let room = buffer.capacity();
        let _kept = buffer.split_to(4);
        done_reading(buffer);
        for _ in 0..=LOOKS {
            drop(to_read(room));
        }
        assert_eq!(with(|spare| spare.read.len()), Some(0));
    }
}
