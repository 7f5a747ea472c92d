//! What the crate tells the outside: one list of [`Event`]s, from which the event stream, the metrics and the logs are fed.
//!
//! A layer emits an event and knows nothing of its listeners. Nothing here waits: a listener that is too slow is told how many
//! events it missed.

mod event;
mod meters;

pub use event::{Event, LapseReport, Recorded};
pub use meters::{FrameMeters, Kind, METRICS, Metric, Unit, describe, publish};

use crate::clock::Clock;
use crate::limits;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Where events go in. Cheap to clone; every layer holds one.
#[derive(Clone)]
pub struct Telemetry {
    sender: broadcast::Sender<Recorded>,
    clock: Arc<dyn Clock>,
    frames: Arc<FrameMeters>,
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
        }
    }

    /// Records `event`: counts it, logs it, and hands it to whoever listens. Never waits.
    pub fn emit(&self, event: Event) {
        contained(|| {
            meters::record(&event);
            event.log();
        });
        // No listener is no error.
        let _ = self.sender.send(Recorded {
            at: self.clock.unix(),
            event,
        });
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
