//! Which refusals are told one by one: a flood of them must not push what matters out of the event stream.
//!
//! Pure: `now` is an argument. It never leaves one uncounted: who is not told of one is told later how many there were.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::budget::Bucket;
use crate::clock::Moment;
use crate::limits;

/// One kind of refusals.
#[derive(Debug, Default)]
pub(super) struct Told {
    bucket: Bucket,
    left_out: u64,
}

impl Told {
    /// Whether this one is told, and then how many before it were not.
    pub(super) fn tell(&mut self, now: Moment) -> Option<u64> {
        let (burst, interval) = (
            limits::GATEWAY_REFUSAL_EVENTS,
            limits::GATEWAY_REFUSAL_INTERVAL,
        );
        if self.bucket.take(now, burst, interval) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out = self.left_out.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_a_flood_is_told_in_part_and_every_one_of_it_is_accounted_for() {
        let (mut told, mut left_out, mut events) = (Told::default(), 0, 0_u64);
        for milli in 0..10_000 {
            let now = Moment::START.after(std::time::Duration::from_millis(milli));
            if let Some(before) = told.tell(now) {
                events += 1;
                left_out += before;
            }
        }
        let most = u64::from(limits::GATEWAY_REFUSAL_EVENTS) + 10;
        assert!((most - 1..=most).contains(&events), "{events}");
        assert_eq!(events + left_out + told.left_out, 10_000);
        let later = Moment::START.after(std::time::Duration::from_secs(60));
        assert!(told.tell(later).is_some_and(|before| before > 900));
        assert_eq!(told.tell(later), Some(0));
    }
}
