//! Where the node receives: links that come and go, and their messages, in one order.
//!
//! A link's end is in it before its successor's first message. Receiving is the moment of delivery: a message of a link in the
//! signer's scope is handed out inside the fence's gate, or refused and counted if the session has lapsed since it was queued.

use crate::limits;
use crate::link::delivery::{Arrivals, Delivery};
use crate::link::{CloseReason, LinkHandle, LinkId, Message};
use crate::node_id::NodeId;
use crate::telemetry::{Event, Telemetry};
use crate::wire::MessageType;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

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

/// The node's end of the queue of all links. A message is delivered when [`recv`](Self::recv) has taken it out of the queue and past
/// the fence; a call that begins after a lapse has returned gives nothing of a link in the signer's scope.
/// While nobody receives, links stop reading, and TCP pushes back on the peers.
pub struct Inbox {
    deliveries: Arrivals,
    stopped: watch::Receiver<bool>,
    telemetry: Telemetry,
    /// Refusals in a row: the first are told as events, the others are counted, or a lapse with a full inbox would push itself out
    /// of the event stream.
    fenced: u32,
}

impl Inbox {
    pub(crate) fn new(
        deliveries: Arrivals,
        stopped: watch::Receiver<bool>,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            deliveries,
            stopped,
            telemetry,
            fenced: 0,
        }
    }

    /// What comes next; `None` once the supervisor has stopped and all that was queued is received. Cancel safe.
    pub async fn recv(&mut self) -> Option<Inbound> {
        loop {
            let delivery = tokio::select! {
                biased;
                delivery = self.deliveries.recv() => delivery?,
                _ = self.stopped.wait_for(|stopped| *stopped) => self.deliveries.try_recv()?,
            };
            if let Some(inbound) = self.deliver(delivery) {
                return Some(inbound);
            }
        }
    }

    /// What is there already, without waiting.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        loop {
            let delivery = self.deliveries.try_recv()?;
            if let Some(inbound) = self.deliver(delivery) {
                return Some(inbound);
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) -> Option<Inbound> {
        match delivery {
            Delivery::Up { state, init } => state.deliver(|| {
                state.set_told();
                Inbound::Up {
                    link: LinkHandle {
                        state: Arc::clone(&state),
                    },
                    init,
                }
            }),
            // Of a link whose beginning was fenced the node hears nothing at all.
            Delivery::Down { state, reason } => state.was_told().then(|| Inbound::Down {
                peer: state.peer,
                link: state.id,
                reason,
            }),
            Delivery::Message { state, bytes } => {
                let kind = MessageType::of(&bytes).unwrap_or(MessageType(0));
                let message = state.deliver(|| Message {
                    peer: state.peer,
                    link: state.id,
                    bytes,
                });
                if let Some(message) = message {
                    self.fenced = 0;
                    return Some(Inbound::Message(message));
                }
                self.fenced = self.fenced.saturating_add(1);
                if self.fenced > limits::REFUSAL_EVENTS {
                    Telemetry::count_refused(kind.label(), "fenced");
                    return None;
                }
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
