//! What a gossip link asks for as it comes up, so that the node learns what it has missed.
//!
//! Pure: the time is an argument. It asks for updates by their timestamps only; it never asks for the whole graph.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits;
use crate::wire::{ChainHash, GossipTimestampFilter};
use std::time::Duration;

/// From when on gossip is wanted at `now`, when the last came at `last` (both since the Unix epoch): from the earlier of `last` and six
/// hours ago, for LDK serves what it has only to a filter that begins before that; an hour before, for clocks differ; on the hour, so
/// that it does not say when this node went away.
pub fn wanted_since(now: Duration, last: Option<Duration>) -> u32 {
    let served = now.saturating_sub(limits::CATCH_UP_AT_LEAST);
    let from = last.map_or(served, |last| last.min(served));
    let from = from.saturating_sub(limits::CATCH_UP_MARGIN).as_secs();
    u32::try_from(from / 3600 * 3600).unwrap_or(u32::MAX)
}

/// The message that asks for it (BOLT 7 § Query Messages).
pub fn request(chain: ChainHash, now: Duration, last: Option<Duration>) -> Vec<u8> {
    GossipTimestampFilter::since(chain, wanted_since(now, last)).encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_from_before_the_last_gossip_and_from_six_hours_ago_at_the_latest() {
        let hours = |count: u64| Duration::from_secs(count * 3600);
        let now = hours(500_000) + Duration::from_secs(1800);
        // Nothing seen, or lately: six hours and one, down to the hour.
        for last in [None, Some(now), Some(now.saturating_sub(hours(5)))] {
            assert_eq!(u64::from(wanted_since(now, last)), (500_000 - 7) * 3600);
        }
        // Away for two days.
        let last = now.saturating_sub(hours(48));
        assert_eq!(
            u64::from(wanted_since(now, Some(last))),
            (500_000 - 49) * 3600
        );
        // Clocks that are wrong.
        assert_eq!(wanted_since(Duration::ZERO, Some(now)), 0);
        assert_eq!(wanted_since(Duration::MAX, Some(Duration::MAX)), u32::MAX);
    }
}
