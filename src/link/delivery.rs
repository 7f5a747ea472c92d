//! The way from the links to the node: one queue for all, bounded in bytes, and of these a share for each link: a link that floods fills
//! its own.
//!
//! A message waits for room before it is queued, and its room is free again when the node has received it. A link's end needs no
//! room of its own: there is one for each link whose beginning had room, so the ends are bounded by it too. It comes after what its
//! link still has to deliver, and waits with that; of a link whose session has lapsed nothing more is delivered, so its end waits for
//! nobody.

use super::CloseReason;
use super::shared::LinkState;
use crate::clock::Clock;
use crate::limits;
use crate::telemetry::{Event, Telemetry};
use bytes::Bytes;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};

/// What goes into the node's inbox, in the order in which the node shall see it.
pub(crate) enum Delivery {
    Up {
        state: Arc<LinkState>,
        init: Bytes,
    },
    Message {
        state: Arc<LinkState>,
        bytes: Bytes,
    },
    Down {
        state: Arc<LinkState>,
        reason: CloseReason,
    },
}

/// A delivery and the room that it takes until it is received.
struct Queued {
    delivery: Delivery,
    _room: Option<Taken>,
}

/// The links' end of the queue.
#[derive(Clone)]
pub(crate) struct Deliveries {
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    stall: Arc<Stall>,
}

/// The node's end of the queue.
pub(crate) struct Arrivals {
    queue: mpsc::UnboundedReceiver<Queued>,
    stall: Arc<Stall>,
}

/// Tells that the node does not receive, once for however many links wait for it, and that it does again.
struct Stall {
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// Links that have waited for too long.
    late: Mutex<usize>,
    /// Told, and its end is not. Written under the lock, so that both are told in turn.
    told: AtomicBool,
}

/// A link that has waited for too long, until it waits no more.
struct Late {
    stall: Arc<Stall>,
    /// It has got its room; else it ends, which says nothing of the node.
    granted: bool,
}

impl Stall {
    /// Returns once whoever began to wait now has waited for too long.
    async fn overdue(&self) {
        let late = self.clock.now().after(limits::INBOX_STALLED_AFTER);
        self.clock.sleep_until(late).await;
    }

    fn enter(self: &Arc<Self>) -> Late {
        let mut late = self.late();
        *late += 1;
        self.tell(true, &late);
        drop(late);
        Late {
            stall: Arc::clone(self),
            granted: false,
        }
    }

    /// The node receives, or is gone: whoever is still late will say so itself.
    fn received(&self) {
        if self.told.load(Ordering::Relaxed) {
            let late = self.late();
            if *late == 0 {
                self.tell(false, &late);
            }
        }
    }

    fn tell(&self, stalled: bool, _under: &MutexGuard<'_, usize>) {
        if self.told.swap(stalled, Ordering::Relaxed) != stalled {
            self.telemetry.emit(Event::InboxStalled { stalled });
        }
    }

    fn late(&self) -> MutexGuard<'_, usize> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let mut late = self.stall.late();
        *late -= 1;
        if self.granted && *late == 0 {
            self.stall.tell(false, &late);
        }
    }
}

impl Arrivals {
    /// What comes next. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Option<Delivery> {
        let queued = self.queue.recv().await?;
        Some(self.taken(queued))
    }

    /// What is there already.
    pub(crate) fn try_recv(&mut self) -> Option<Delivery> {
        let queued = self.queue.try_recv().ok()?;
        Some(self.taken(queued))
    }

    fn taken(&self, queued: Queued) -> Delivery {
        self.stall.received();
        queued.delivery
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.stall.received();
    }
}

/// Room that is taken: of all, and of the link's share.
pub(crate) struct Taken {
    _of_all: OwnedSemaphorePermit,
    _of_link: TakenShare,
}

/// Room that is taken of a link's share; given back when it is dropped.
struct TakenShare {
    of: Arc<LinkState>,
    cost: u32,
}

impl TakenShare {
    /// For room that the semaphore has just granted.
    fn keep(granted: SemaphorePermit<'_>, of: &Arc<LinkState>, cost: u32) -> Self {
        granted.forget();
        let of = Arc::clone(of);
        Self { of, cost }
    }
}

impl Drop for TakenShare {
    fn drop(&mut self) {
        self.of.inbox_share.add_permits(self.cost as usize);
    }
}

/// Room for one delivery.
pub(crate) type Room = Result<Taken, AcquireError>;

/// One link's share of the queue, empty.
pub(crate) fn share() -> Semaphore {
    Semaphore::new(limits::INBOX_PER_LINK)
}

impl Deliveries {
    pub(crate) fn new(clock: Arc<dyn Clock>, telemetry: Telemetry) -> (Self, Arrivals) {
        let (queue, received) = mpsc::unbounded_channel();
        let stall = Arc::new(Stall {
            clock,
            telemetry,
            late: Mutex::new(0),
            told: AtomicBool::new(false),
        });
        let arrivals = Arrivals {
            queue: received,
            stall: Arc::clone(&stall),
        };
        (
            Self {
                queue,
                room: Arc::new(Semaphore::new(limits::INBOX_BYTES)),
                stall,
            },
            arrivals,
        )
    }

    /// Whether the node takes what comes as it comes: less than [`INBOX_PROMPT`](limits::INBOX_PROMPT) waits.
    pub(crate) fn is_nearly_empty(&self) -> bool {
        self.room.available_permits() > limits::INBOX_BYTES - limits::INBOX_PROMPT
    }

    /// Queues `delivery` if there is room now; gives it back if there is none.
    pub(crate) fn try_send(&self, delivery: Delivery) -> Result<(), Delivery> {
        let (cost, link) = (cost(&delivery), link_of(&delivery));
        let Ok(granted) = link.inbox_share.try_acquire_many(cost) else {
            return Err(delivery);
        };
        let of_link = TakenShare::keep(granted, link, cost);
        let Ok(of_all) = Arc::clone(&self.room).try_acquire_many_owned(cost) else {
            return Err(delivery);
        };
        let room = Taken {
            _of_all: of_all,
            _of_link: of_link,
        };
        self.send(delivery, Some(room));
        Ok(())
    }

    /// Waits for the room that `delivery` needs: first of its link's share, where it waits for nobody but the node; then of all, where
    /// who waits keeps its turn and nobody overtakes. Who waits for too long has it told.
    pub(crate) fn room_for(
        &self,
        delivery: &Delivery,
    ) -> impl Future<Output = Room> + Send + use<> {
        let (link, all) = (Arc::clone(link_of(delivery)), Arc::clone(&self.room));
        let (cost, stall) = (cost(delivery), Arc::clone(&self.stall));
        let room = async move {
            let granted = link.inbox_share.acquire_many(cost).await?;
            let of_link = TakenShare::keep(granted, &link, cost);
            let of_all = all.acquire_many_owned(cost).await?;
            Ok(Taken {
                _of_all: of_all,
                _of_link: of_link,
            })
        };
        async move {
            let mut room = pin!(room);
            tokio::select! {
                biased;
                room = &mut room => return room,
                () = stall.overdue() => {}
            }
            let mut late = stall.enter();
            let room = room.await;
            late.granted = room.is_ok();
            room
        }
    }

    /// Queues `delivery` in the room that it has, or without any, if it is a link's end. Without a node that listens there is
    /// nobody to tell.
    pub(crate) fn send(&self, delivery: Delivery, room: Option<Taken>) {
        let _ = self.queue.send(Queued {
            delivery,
            _room: room,
        });
    }
}

fn link_of(delivery: &Delivery) -> &Arc<LinkState> {
    match delivery {
        Delivery::Up { state, .. }
        | Delivery::Message { state, .. }
        | Delivery::Down { state, .. } => state,
    }
}

fn cost(delivery: &Delivery) -> u32 {
    let bytes = match delivery {
        Delivery::Up { init: bytes, .. } | Delivery::Message { bytes, .. } => bytes.len(),
        Delivery::Down { .. } => 0,
    };
    u32::try_from(bytes.saturating_add(limits::INBOX_OVERHEAD)).unwrap_or(u32::MAX)
}
