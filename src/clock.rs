//! Time as the drivers see it: a monotonic line of moments, the wall clock, and a way to wait.
//!
//! The pure cores never ask for the time; they are told a [`Moment`]. An embedder may bring its own [`Clock`];
//! [`SystemClock`] is the default and [`ManualClock`] is for tests that must not depend on real time.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on a clock's monotonic line, counted from that clock's own start in whole nanoseconds: some 584 years of them, where the line
/// ends. It never goes backwards. Half as large as a `Duration`, for every link and every peer holds some.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The clock's own start.
    pub const START: Self = Self(0);

    /// The moment that lies `since_start` after the clock's start.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(nanoseconds(since_start))
    }

    /// How long after the clock's start this is.
    pub const fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment, `by` later; the line's end when that is out of range.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(by)))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Moment").field(&self.since_start()).finish()
    }
}

/// As many as there are, or as fit.
#[expect(clippy::cast_possible_truncation, reason = "compared before")]
const fn nanoseconds(span: Duration) -> u64 {
    let all = span.as_nanos();
    if all > u64::MAX as u128 {
        u64::MAX
    } else {
        all as u64
    }
}

/// A wait that ends at some moment.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the drivers get the time from.
pub trait Clock: Send + Sync + 'static {
    /// Now, on the monotonic line.
    fn now(&self) -> Moment;

    /// The wall clock, as time since the Unix epoch. Used for timestamps that people or peers read, never to order events.
    fn unix(&self) -> Duration;

    /// A future that is ready once `now()` has reached `at`. Called inside the runtime that is to wake whoever waits for it.
    fn sleep_until(&self, at: Moment) -> Sleep;
}

/// The machine's clock, waiting on tokio's timer.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose line starts now.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    fn unix(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        match self.start.checked_add(at.since_start()) {
            Some(instant) => Box::pin(tokio::time::sleep_until(instant.into())),
            // Beyond what the machine can count to: never.
            None => Box::pin(std::future::pending()),
        }
    }
}

/// A clock that stands still until a test moves it.
///
/// ```
/// use pilotlight::clock::{Clock, ManualClock};
/// use std::time::Duration;
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Default)]
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
}

#[derive(Default)]
struct ManualState {
    now: Duration,
    next_key: u64,
    sleepers: BTreeMap<(Moment, u64), Waker>,
}

impl ManualClock {
    /// A clock that stands at its start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on and wakes every wait that has thereby ended.
    pub fn advance(&self, by: Duration) {
        let due = {
            let mut state = self.lock();
            state.now = state.now.saturating_add(by);
            let limit = (Moment::from_start(state.now), u64::MAX);
            let later = state.sleepers.split_off(&limit);
            std::mem::replace(&mut state.sleepers, later)
        };
        for waker in due.into_values() {
            waker.wake();
        }
    }

    /// How many waits are pending. Lets a test see that somebody is waiting before it moves the clock.
    pub fn sleepers(&self) -> usize {
        self.lock().sleepers.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_start(self.lock().now)
    }

    fn unix(&self) -> Duration {
        // A fixed date plus the time moved: 2026-01-01T00:00:00Z.
        Duration::from_secs(1_767_225_600).saturating_add(self.lock().now)
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        Box::pin(ManualSleep {
            clock: self.clone(),
            at,
            key: None,
        })
    }
}

struct ManualSleep {
    clock: ManualClock,
    at: Moment,
    key: Option<u64>,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        let mut state = clock.lock();
        if Moment::from_start(state.now) >= self.at {
            return Poll::Ready(());
        }
        let key = *self.key.get_or_insert_with(|| {
            state.next_key += 1;
            state.next_key
        });
        state.sleepers.insert((self.at, key), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.lock().sleepers.remove(&(self.at, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_only_the_waits_that_have_ended() {
        let clock = ManualClock::new();
        let soon = tokio::spawn(clock.sleep_until(Moment::from_start(Duration::from_secs(1))));
        let late = tokio::spawn(clock.sleep_until(Moment::from_start(Duration::from_secs(5))));
        while clock.sleepers() < 2 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(1));
        soon.await.unwrap_or_default();
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_secs(4));
        late.await.unwrap_or_default();
        assert_eq!(clock.sleepers(), 0);
    }

    #[test]
    fn a_moment_saturates_instead_of_wrapping() {
        let end = Moment::from_start(Duration::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        assert_eq!(Moment::START.since(end), Duration::ZERO);
    }
}
