//! The way from the links to the node: one queue for all, bounded in bytes.
//!
//! A message waits for room before it is queued, and its room is free again when the node has received it. A link's end needs no
//! room: there is one for each link whose beginning had room, so the ends are bounded by it too, and a node that does not listen
//! keeps no link's end, and no successor, waiting.

use super::CloseReason;
use super::shared::LinkState;
use crate::limits;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc};

/// What goes into the node's inbox, in the order in which the node shall see it.
pub(crate) enum Delivery {
    Up { state: Arc<LinkState>, init: Bytes },
    Message { state: Arc<LinkState>, bytes: Bytes },
    Down { state: Arc<LinkState>, reason: CloseReason },
}

/// A delivery and the room that it takes until it is received.
pub(crate) struct Queued {
    pub(crate) delivery: Delivery,
    _room: Option<OwnedSemaphorePermit>,
}

/// The links' end of the queue.
#[derive(Clone)]
pub(crate) struct Deliveries {
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// Room for one delivery.
pub(crate) type Room = Result<OwnedSemaphorePermit, AcquireError>;

impl Deliveries {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (queue, received) = mpsc::unbounded_channel();
        (Self { queue, room: Arc::new(Semaphore::new(limits::INBOX_BYTES)) }, received)
    }

    /// Queues `delivery` if there is room now; gives it back if there is none.
    pub(crate) fn try_send(&self, delivery: Delivery) -> Result<(), Delivery> {
        match Arc::clone(&self.room).try_acquire_many_owned(cost(&delivery)) {
            Ok(room) => {
                self.send(delivery, Some(room));
                Ok(())
            }
            Err(_) => Err(delivery),
        }
    }

    /// Waits for the room that `delivery` needs. Who waits keeps its turn; nobody overtakes.
    pub(crate) fn room_for(&self, delivery: &Delivery) -> impl Future<Output = Room> + Send + 'static {
        Arc::clone(&self.room).acquire_many_owned(cost(delivery))
    }

    /// Queues `delivery` in the room that it has, or without any, if it is a link's end. Without a node that listens there is
    /// nobody to tell.
    pub(crate) fn send(&self, delivery: Delivery, room: Option<OwnedSemaphorePermit>) {
        let _ = self.queue.send(Queued { delivery, _room: room });
    }
}

fn cost(delivery: &Delivery) -> u32 {
    let bytes = match delivery {
        Delivery::Up { init: bytes, .. } | Delivery::Message { bytes, .. } => bytes.len(),
        Delivery::Down { .. } => 0,
    };
    u32::try_from(bytes.saturating_add(limits::INBOX_OVERHEAD)).unwrap_or(u32::MAX)
}
