//! A number of things that may be done, which grows back with time: a token bucket.
//!
//! Pure: `now` is an argument.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::clock::Moment;
use std::time::Duration;

/// What is left, and how it grows back.
#[derive(Debug, Clone)]
pub struct Allowance {
    most: u32,
    left: u32,
    /// How many grow back in each `interval`.
    regained: u32,
    interval: Duration,
    /// Up to when what has grown back is counted.
    since: Moment,
}

impl Allowance {
    /// All of `most`; `regained` of them grow back every `interval`.
    pub fn full(most: u32, regained: u32, interval: Duration, now: Moment) -> Self {
        Self { most, left: most, regained, interval, since: now }
    }

    /// Takes `cost` if so much is left.
    pub fn spend(&mut self, now: Moment, cost: u32) -> bool {
        self.regain(now);
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn regain(&mut self, now: Moment) {
        let intervals = now.since(self.since).as_nanos().checked_div(self.interval.as_nanos()).unwrap_or(0);
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        if intervals == 0 {
            return;
        }
        self.left = self.left.saturating_add(intervals.saturating_mul(self.regained)).min(self.most);
        self.since = self.since.after(self.interval.saturating_mul(intervals));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn p9_what_is_spent_grows_back_with_time_and_no_further_than_the_most() {
        let mut now = Moment::START;
        let mut allowance = Allowance::full(5, 1, SECOND, now);
        assert_eq!((0..10).filter(|_| allowance.spend(now, 1)).count(), 5);
        now = now.after(SECOND);
        assert_eq!((0..10).filter(|_| allowance.spend(now, 1)).count(), 1);
        now = now.after(SECOND * 1000);
        assert_eq!((0..10).filter(|_| allowance.spend(now, 1)).count(), 5);
        now = now.after(SECOND / 2);
        assert!(!allowance.spend(now, 1));
        now = now.after(SECOND / 2);
        assert!(allowance.spend(now, 1), "two halves of an interval are one");
        assert!(!allowance.spend(now.after(Duration::MAX), 6), "more than there can be");
    }
}
