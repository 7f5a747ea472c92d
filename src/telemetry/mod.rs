//! What the crate tells the outside: one list of [`Event`]s, from which the event stream, the metrics and the logs are fed.
//!
//! The metrics go to the process's recorder of the `metrics` facade, if it has one, and no label of theirs names the node: two nodes in a
//! process share every series, and a gauge is that of the one that was last given to [`publish`].
//!
//! A layer emits an event and knows nothing of its listeners. Nothing here waits: a listener that is too slow is told how many
//! events it missed.

mod event;
mod history;
mod list;
mod log;
mod meters;
mod refusals;

pub use event::{Event, LapseReport, Recorded};
pub(crate) use list::THROTTLED;
pub use list::{Kind, METRICS, Metric, PEER_METRICS, PROCESS_METRICS, Unit};
#[cfg(feature = "admin")]
pub(crate) use log::{micros, millis};
pub use meters::{FrameMeters, Tally, describe, publish, publish_certificate, publish_peers};
pub use refusals::Refusal;

use crate::clock::Clock;
#[cfg(feature = "admin")]
use crate::clock::Moment;
use crate::limits;
use crate::link::{Direction, Identity, LinkId, Tag};
use crate::node_id::NodeId;
use history::History;
use refusals::Refusals;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// Where events go in. Cheap to clone; every layer holds one.
#[derive(Clone)]
pub struct Telemetry {
    sender: broadcast::Sender<Recorded>,
    clock: Arc<dyn Clock>,
    frames: Arc<FrameMeters>,
    refusals: Arc<Mutex<Refusals>>,
    history: Arc<Mutex<History>>,
    #[cfg(feature = "admin")]
    behind: Arc<Mutex<Behind>>,
    started: Duration,
}

/// What is to be told of readers that are too slow.
#[cfg(feature = "admin")]
#[derive(Debug, Default)]
struct Behind {
    missed: u64,
    not_before: Option<Moment>,
}

/// How many kept events a listener takes at a time, under the lock that whoever emits one needs too: some ten microseconds.
const REPLAYED_AT_ONCE: usize = 64;

impl Telemetry {
    /// A new list of listeners, empty at first. Timestamps are taken from `clock`. Install a metrics recorder, if there is to
    /// be one, before: [`FrameMeters`] keep to the one that is there now.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (sender, _) = broadcast::channel(limits::EVENTS_BUFFER);
        let started = clock.unix();
        Self {
            sender,
            clock,
            frames: Arc::new(FrameMeters::new()),
            refusals: Arc::default(),
            history: Arc::default(),
            #[cfg(feature = "admin")]
            behind: Arc::default(),
            started,
        }
    }

    /// Records `event`: counts it, logs it, and hands it to whoever listens. Never waits.
    pub fn emit(&self, event: Event) {
        self.emit_in(None, event);
    }

    /// The same, logged in a span.
    pub(crate) fn emit_in(&self, span: Option<&tracing::Span>, event: Event) {
        let at = self.clock.unix();
        let unsaid = self.note(at, &event);
        contained(|| {
            meters::record(&event);
            match span {
                Some(span) => span.in_scope(|| event.log(unsaid)),
                None => event.log(unsaid),
            }
        });
        let mut recorded = Recorded {
            at,
            event,
            number: None,
        };
        // Kept and sent under one lock, so that a listener who has taken what was kept misses nothing and gets nothing twice.
        let mut kept = history::keeps(&recorded.event).then(|| locked(&self.history));
        if let Some(history) = &mut kept {
            history.keep(&mut recorded);
        }
        // No listener is no error.
        let _ = self.sender.send(recorded);
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
            detail: detail.to_string(),
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

    /// Logs that a link's task panicked. Its secrets are wiped by then.
    pub(crate) fn link_panicked(link: LinkId) {
        let link = link.get();
        contained(|| tracing::error!(link, "the task of a link panicked; the link is closed"));
    }

    /// Counts a signer that was turned away without an event: for when there are too many of them.
    #[cfg(feature = "gateway")]
    pub(crate) fn count_signer_refused(failure: &'static str) {
        contained(|| meters::signer_refused(failure));
    }

    /// Says that a reader of the event stream is too slow: it has missed so many events, or takes nothing. The metric counts them each
    /// time; an event tells it once in [`LISTENER_BEHIND_INTERVAL`](limits::LISTENER_BEHIND_INTERVAL) at most, and what is missed in
    /// between is in the next, if there is one.
    #[cfg(feature = "admin")]
    pub(crate) fn listener_behind(&self, missed: u64) {
        contained(|| meters::events_missed(missed));
        let now = self.clock.now();
        let untold = {
            let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
            behind.missed = behind.missed.saturating_add(missed);
            if behind.not_before > Some(now) {
                return;
            }
            behind.not_before = Some(now.after(limits::LISTENER_BEHIND_INTERVAL));
            std::mem::take(&mut behind.missed)
        };
        self.emit(Event::ListenerBehind { missed: untold });
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
            replay: None,
        }
    }

    /// The same, after the events that are still kept and whose number is greater than `after`: 0 for all. If some are no longer
    /// kept and `after` is not 0, that is said first. [`Next::CaughtUp`] stands between what was kept and what happens.
    pub fn subscribe_after(&self, after: u64) -> EventStream {
        let (lost, evicted) = {
            let history = locked(&self.history);
            let lost = match after {
                0 => 0,
                after => history.lost_after(after),
            };
            (lost, history.evicted())
        };
        EventStream {
            // Moved to where the kept events end, once it has come there.
            receiver: self.sender.subscribe(),
            replay: Some(Replay {
                history: Arc::clone(&self.history),
                after,
                lost,
                evicted,
                taken: VecDeque::new(),
            }),
        }
    }

    /// The number of the newest event that was kept; 0 before the first.
    pub fn newest_kept(&self) -> u64 {
        locked(&self.history).newest()
    }

    /// When this list of listeners was made, since the Unix epoch: what tells its numbers from those of an earlier process.
    pub fn started(&self) -> Duration {
        self.started
    }
}

/// The recorder and the subscriber are the embedder's: their panic must not take the caller's task, or the reaper, with it. The
/// panic hook has told of it by then.
fn contained(work: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
}

/// The span in which the log has the events of a link. Nothing is entered where there is no event: a message costs none. Its tag is the
/// supervisor's to say, when it lets the link in.
pub(crate) fn link_span(
    peer: NodeId,
    link: LinkId,
    direction: Direction,
    identity: Identity,
) -> Option<Box<tracing::Span>> {
    let mut span = None;
    contained(|| {
        let it = tracing::info_span!(
            "link",
            node_id = %peer,
            tag = tracing::field::Empty,
            link = link.get(),
            direction = direction.as_str(),
            identity = identity.as_str(),
        );
        // Boxed, and only where there is something to say: every link holds one.
        span = (!it.is_disabled()).then(|| Box::new(it));
    });
    span
}

/// Says in a link's span what its peer's tag is now.
pub(crate) fn retag(span: Option<&tracing::Span>, tag: Tag) {
    if let Some(span) = span {
        contained(|| {
            span.record("tag", tag.as_str());
        });
    }
}

fn locked(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Events as they happen.
pub struct EventStream {
    receiver: broadcast::Receiver<Recorded>,
    replay: Option<Replay>,
}

/// Kept events that a listener has yet to be given.
struct Replay {
    history: Arc<Mutex<History>>,
    after: u64,
    /// Lost to it, and not yet said.
    lost: u64,
    /// How many had been thrown away when it last looked.
    evicted: u64,
    taken: VecDeque<Recorded>,
}

impl Replay {
    /// The next kept event. Once there is none left, `receiver` is moved to right there.
    fn next(&mut self, receiver: &mut broadcast::Receiver<Recorded>) -> Option<Next> {
        if self.taken.is_empty() {
            self.take(receiver);
        }
        if self.lost > 0 {
            return Some(Next::Missed(std::mem::take(&mut self.lost)));
        }
        let next = self.taken.pop_front()?;
        self.after = next.number.unwrap_or(self.after);
        Some(Next::Event(next))
    }

    fn take(&mut self, receiver: &mut broadcast::Receiver<Recorded>) {
        let history = locked(&self.history);
        // Thrown away while this listener took its time: at most so many of them were still to be given.
        let evicted = history.evicted();
        let since = evicted.saturating_sub(std::mem::replace(&mut self.evicted, evicted));
        self.lost += since.min(history.lost_after(self.after));
        self.taken = history.after(self.after, REPLAYED_AT_ONCE).into();
        if self.taken.is_empty() {
            // Nobody sends between the look and this: a kept event is sent under the same lock.
            *receiver = receiver.resubscribe();
        }
    }
}

/// What [`EventStream::next`] gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Next {
    /// An event and when it happened.
    Event(Recorded),
    /// The listener was too slow: this many events are lost to it.
    Missed(u64),
    /// The events that were kept have all been given; what follows happens from now on. Only from [`Telemetry::subscribe_after`].
    CaughtUp,
}

impl EventStream {
    /// The next kept event, while there is one to be given.
    fn replayed(&mut self) -> Option<Next> {
        let next = self.replay.as_mut()?.next(&mut self.receiver);
        if next.is_none() {
            self.replay = None;
            return Some(Next::CaughtUp);
        }
        next
    }

    /// The next event; `None` once the supervisor, its inbox and every handle on its links are gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Next> {
        if let Some(next) = self.replayed() {
            return Some(next);
        }
        match self.receiver.recv().await {
            Ok(recorded) => Some(Next::Event(recorded)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event that is already there, without waiting.
    pub fn try_next(&mut self) -> Option<Next> {
        if let Some(next) = self.replayed() {
            return Some(next);
        }
        match self.receiver.try_recv() {
            Ok(recorded) => Some(Next::Event(recorded)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::SystemClock;
    use crate::supervisor::Mode;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    /// Looks, when a listener is woken, whether the history is locked.
    struct Look {
        history: Arc<Mutex<History>>,
        locked: AtomicUsize,
        free: AtomicUsize,
    }

    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            let is_free = self.history.try_lock().is_ok();
            let seen = if is_free { &self.free } else { &self.locked };
            seen.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A listener is woken by the sending. If the history were free then, one that takes over from what was kept could miss the event,
    /// or get it twice.
    #[test]
    fn an_event_that_is_kept_is_sent_before_the_history_is_free_again() {
        let telemetry = Telemetry::new(Arc::new(SystemClock::new()));
        let look = Arc::new(Look {
            history: Arc::clone(&telemetry.history),
            locked: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
        });
        let waker = Waker::from(Arc::clone(&look));
        let mut listener = telemetry.subscribe();
        for (event, expected) in [
            (
                Event::ModeChanged {
                    from: Mode::Live,
                    to: Mode::Safe,
                },
                (1, 0),
            ),
            // One that is not kept takes no lock.
            (Event::Parked { now: 1 }, (1, 1)),
        ] {
            let mut next = pin!(listener.next());
            assert!(
                next.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            telemetry.emit(event);
            let seen = (&look.locked, &look.free);
            assert_eq!(
                (
                    seen.0.load(Ordering::Relaxed),
                    seen.1.load(Ordering::Relaxed)
                ),
                expected
            );
            assert!(
                next.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
            );
        }
    }
}
