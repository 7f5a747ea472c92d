//! A signer that comes and goes: how long channel peers wait after its return. It grows with recent lapses and is forgotten when
//! there has been none for a while, so that a signer that flaps does not drag every channel peer along with it.
//!
//! Plain data; it decides nothing across peers and knows only what it is told.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::clock::Moment;
use crate::limits;
use std::time::Duration;

/// The wait after a return.
#[derive(Debug, Clone)]
pub(super) struct HoldDown {
    longest: Duration,
    /// Lapses, each of which came soon after the one before it.
    lapses: u32,
    last_lapse: Option<Moment>,
    /// Channel peers wait until then.
    until: Option<Moment>,
}

impl HoldDown {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            lapses: 0,
            last_lapse: None,
            until: None,
        }
    }

    /// When it is over, while there is one.
    pub(super) fn until(&self) -> Option<Moment> {
        self.until
    }

    /// Lapses that it was counted from.
    pub(super) fn lapses(&self) -> u32 {
        self.lapses
    }

    /// A session ended: there is nothing to wait for until the next.
    pub(super) fn lapsed(&mut self, now: Moment) {
        self.until = None;
        self.forget_old(now);
        self.lapses = self.lapses.saturating_add(1);
        self.last_lapse = Some(now);
    }

    /// A session begins: how long channel peers wait.
    pub(super) fn attached(&mut self, now: Moment) -> Duration {
        self.forget_old(now);
        let wait = match self.lapses {
            0 | 1 => Duration::ZERO,
            lapses => limits::HOLD_DOWN_FIRST
                .saturating_mul(2_u32.saturating_pow(lapses.saturating_sub(2)))
                .min(self.longest),
        };
        self.until = (!wait.is_zero()).then(|| now.after(wait));
        wait
    }

    /// `true`, once, when it is over.
    pub(super) fn end_if_over(&mut self, now: Moment) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }

    pub(super) fn cancel(&mut self) {
        self.until = None;
    }

    fn forget_old(&mut self, now: Moment) {
        let stable = |last: Moment| now.since(last) >= limits::STABLE_AFTER;
        if self.last_lapse.is_some_and(stable) {
            self.lapses = 0;
        }
    }
}
