//! What the crate tells the outside: one list of [`Event`]s, from which the event stream, the metrics and the logs are fed.
//!
//! A layer emits an event and knows nothing of its listeners. Nothing here waits: a listener that is too slow is told how many
//! events it missed.

mod event;
mod list;
mod meters;
mod refusals;

pub use event::{Event, LapseReport, Recorded};
pub use list::{Kind, METRICS, Metric, PEER_METRICS, PROCESS_METRICS, Unit};
pub use meters::{FrameMeters, Tally, describe, publish, publish_certificate, publish_peers};
pub use refusals::Refusal;

use crate::clock::Clock;
use crate::limits;
use crate::link::{Direction, Identity, LinkId, Tag};
use crate::node_id::NodeId;
use refusals::Refusals;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// Where events go in. Cheap to clone; every layer holds one.
#[derive(Clone)]
pub struct Telemetry {
    sender: broadcast::Sender<Recorded>,
    clock: Arc<dyn Clock>,
    frames: Arc<FrameMeters>,
    refusals: Arc<Mutex<Refusals>>,
}

impl Telemetry {
    /// A new list of listeners, empty at first. Timestamps are taken from `clock`. Install a metrics recorder, if there is to
    /// be one, before: [`FrameMeters`] keep to the one that is there now.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (sender, _) = broadcast::channel(limits::EVENTS_BUFFER);
        Self {
            sender,
            clock,
            frames: Arc::new(FrameMeters::new()),
            refusals: Arc::default(),
        }
    }

    /// Records `event`: counts it, logs it, and hands it to whoever listens. Never waits.
    pub fn emit(&self, event: Event) {
        let at = self.clock.unix();
        let unsaid = self.note(at, &event);
        contained(|| {
            meters::record(&event);
            event.log(unsaid);
        });
        // No listener is no error.
        let _ = self.sender.send(Recorded { at, event });
    }

    /// For the refusal of a stranger that is to be said: how many of its reason were not.
    fn note(&self, at: Duration, event: &Event) -> Option<u64> {
        let Event::SignerRefused {
            address,
            failure,
            detail,
            ..
        } = event
        else {
            return None;
        };
        let refusal = Refusal {
            at,
            address: *address,
            reason: failure,
            detail: detail.clone(),
        };
        self.refusals().note(refusal)
    }

    /// The last time that a signer was refused.
    pub fn last_refusal(&self) -> Option<Refusal> {
        self.refusals().last()
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refused message without an event: for when there are too many of them.
    pub(crate) fn count_refused(name: &'static str, action: &'static str) {
        contained(|| meters::refused(name, action));
    }

    /// Counts a signer that was turned away without an event: for when there are too many of them.
    #[cfg(feature = "gateway")]
    pub(crate) fn count_signer_refused(failure: &'static str) {
        contained(|| meters::signer_refused(failure));
    }

    /// Counts a connection that was turned away, without an event: for when there are too many of them.
    pub(crate) fn count_inbound_failed(reason: &'static str) {
        contained(|| meters::inbound_failed(reason));
    }

    /// The counters of frames and bytes, which are too frequent to be events.
    pub fn frames(&self) -> &FrameMeters {
        &self.frames
    }

    /// A stream of all events from now on.
    pub fn subscribe(&self) -> EventStream {
        EventStream {
            receiver: self.sender.subscribe(),
        }
    }
}

/// The recorder and the subscriber are the embedder's: their panic must not take the caller's task, or the reaper, with it. The
/// panic hook has told of it by then.
fn contained(work: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
}

/// The span in which the log has everything that happens on a link. Its tag is the supervisor's to say, when it lets the link in.
pub(crate) fn link_span(
    peer: NodeId,
    link: LinkId,
    direction: Direction,
    identity: Identity,
) -> tracing::Span {
    let mut span = tracing::Span::none();
    contained(|| {
        span = tracing::info_span!(
            "link",
            node_id = %peer,
            tag = tracing::field::Empty,
            link = link.get(),
            direction = direction.as_str(),
            identity = identity.as_str(),
        );
    });
    span
}

/// Says in a link's span what its peer's tag is now.
pub(crate) fn retag(span: &tracing::Span, tag: Tag) {
    contained(|| {
        span.record("tag", tag.as_str());
    });
}

/// Events as they happen.
pub struct EventStream {
    receiver: broadcast::Receiver<Recorded>,
}

/// What [`EventStream::next`] gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Next {
    /// An event and when it happened.
    Event(Recorded),
    /// The listener was too slow: this many events are lost to it.
    Missed(u64),
}

impl EventStream {
    /// The next event; `None` once the supervisor, its inbox and every handle on its links are gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Next> {
        match self.receiver.recv().await {
            Ok(recorded) => Some(Next::Event(recorded)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event that is already there, without waiting.
    pub fn try_next(&mut self) -> Option<Next> {
        match self.receiver.try_recv() {
            Ok(recorded) => Some(Next::Event(recorded)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                None
            }
        }
    }
}
