//! Where the node receives: links that come and go, and their messages, in one order.
//!
//! A link's end is in it before its successor's first message. Receiving is the moment of delivery: a message of a link in the
//! signer's scope is handed out inside the fence's gate, or refused and counted if the session has lapsed since it was queued.

use crate::link::driver::Delivery;
use crate::link::{CloseReason, LinkHandle, LinkId, Message};
use crate::node_id::NodeId;
use crate::telemetry::{Event, Telemetry};
use crate::wire::MessageType;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// What the node receives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Inbound {
    /// A link is up.
    Up {
        /// To send on it.
        link: LinkHandle,
        /// The peer's `init`, as it came.
        init: Bytes,
    },
    /// A message.
    Message(Message),
    /// A link ended. Nothing more comes from it.
    Down {
        /// With whom.
        peer: NodeId,
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
}

/// The node's end of the queue of all links. While nobody receives, links stop reading, and TCP pushes back on the peers.
pub struct Inbox {
    deliveries: mpsc::Receiver<Delivery>,
    /// Turns true when the supervisor has stopped. Handles that the node keeps would hold the queue open for ever.
    stopped: watch::Receiver<bool>,
    telemetry: Telemetry,
}

impl Inbox {
    pub(crate) fn new(
        deliveries: mpsc::Receiver<Delivery>,
        stopped: watch::Receiver<bool>,
        telemetry: Telemetry,
    ) -> Self {
        Self { deliveries, stopped, telemetry }
    }

    /// What comes next; `None` once the supervisor has stopped. Cancel safe.
    pub async fn recv(&mut self) -> Option<Inbound> {
        loop {
            let delivery = tokio::select! {
                biased;
                delivery = self.deliveries.recv() => delivery?,
                _ = self.stopped.wait_for(|stopped| *stopped) => self.deliveries.try_recv().ok()?,
            };
            if let Some(inbound) = self.deliver(delivery) {
                return Some(inbound);
            }
        }
    }

    /// What is there already, without waiting.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        loop {
            let delivery = self.deliveries.try_recv().ok()?;
            if let Some(inbound) = self.deliver(delivery) {
                return Some(inbound);
            }
        }
    }

    fn deliver(&self, delivery: Delivery) -> Option<Inbound> {
        match delivery {
            Delivery::Up { state, init } => Some(Inbound::Up { link: LinkHandle { state }, init }),
            Delivery::Down { state, reason } => Some(Inbound::Down { peer: state.peer, link: state.id, reason }),
            Delivery::Message { state, bytes } => {
                if state.may_deliver() {
                    return Some(Inbound::Message(Message { peer: state.peer, link: state.id, bytes }));
                }
                let kind = MessageType::of(&bytes).unwrap_or(MessageType(0));
                self.telemetry.emit(Event::Refused {
                    peer: state.peer,
                    link: state.id,
                    kind: kind.0,
                    name: kind.label(),
                    action: "fenced",
                });
                None
            }
        }
    }
}
