//! A number of things that may be done, which grows back with time: a token bucket.
//!
//! Pure: `now` is an argument.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::clock::Moment;
use std::time::Duration;

/// How much there is, and how it grows back: the same for many links, each of which has its own [`Allowance`].
#[derive(Debug)]
pub struct Rate {
    /// As many as there can be.
    pub most: u32,
    /// How many grow back in each `interval`.
    pub regained: u32,
    /// That interval.
    pub interval: Duration,
}

/// What is left. It does not say at which rate it grows back: every link holds some, and whoever spends knows.
#[derive(Debug, Clone)]
pub struct Allowance {
    left: u32,
    /// Up to when what has grown back is counted.
    since: Moment,
}

impl Allowance {
    /// All that there can be at this rate.
    pub fn full(rate: &Rate, now: Moment) -> Self {
        Self {
            left: rate.most,
            since: now,
        }
    }

    /// Takes `cost` if so much is left. The rate is the one that it was made with.
    pub fn spend(&mut self, rate: &Rate, now: Moment, cost: u32) -> bool {
        self.regain(rate, now);
        if self.left == rate.most {
            // What is full gains nothing: the first interval begins with the first spending.
            self.since = self.since.max(now);
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn regain(&mut self, rate: &Rate, now: Moment) {
        let Rate {
            most,
            regained,
            interval,
        } = *rate;
        let intervals = now
            .since(self.since)
            .as_nanos()
            .checked_div(interval.as_nanos())
            .unwrap_or(0);
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        if intervals == 0 {
            return;
        }
        self.left = self
            .left
            .saturating_add(intervals.saturating_mul(regained))
            .min(most);
        self.since = self.since.after(interval.saturating_mul(intervals));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RATE: Rate = Rate {
        most: 5,
        regained: 1,
        interval: SECOND,
    };

    #[test]
    fn p9_what_is_spent_grows_back_with_time_and_no_further_than_the_most() {
        let mut now = Moment::START;
        let mut allowance = Allowance::full(&RATE, now);
        assert_eq!(
            (0..10).filter(|_| allowance.spend(&RATE, now, 1)).count(),
            5
        );
        now = now.after(SECOND);
        assert_eq!(
            (0..10).filter(|_| allowance.spend(&RATE, now, 1)).count(),
            1
        );
        now = now.after(SECOND * 1000);
        assert_eq!(
            (0..10).filter(|_| allowance.spend(&RATE, now, 1)).count(),
            5
        );
        now = now.after(SECOND / 2);
        assert!(!allowance.spend(&RATE, now, 1));
        now = now.after(SECOND / 2);
        assert!(
            allowance.spend(&RATE, now, 1),
            "two halves of an interval are one"
        );
        assert!(
            !allowance.spend(&RATE, now.after(Duration::MAX), 6),
            "more than there can be"
        );
    }
}
