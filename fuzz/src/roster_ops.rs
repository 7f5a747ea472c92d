//! All peers of one node, through any history, with times: the promises of the supervisor's machine are checked after every event.
//!
//! `PILOTLIGHT_FUZZ_TELL=1` prints the history of a run.

use super::feed::Feed;
use super::roster_world::{Choices, World};
use pilotlight::limits;
use pilotlight::supervisor::machine::Policy;
use std::time::Duration;

/// Events in one run, before everything is brought to rest.
const MOST: usize = 400;

impl Choices for Feed<'_> {
    fn below(&mut self, bound: usize) -> usize {
        Feed::below(self, bound)
    }

    fn flag(&mut self) -> bool {
        Feed::flag(self)
    }

    fn number(&mut self, bound: u16) -> u16 {
        self.u16() % bound
    }
}

/// A byte of policy, a seed, how it ends, then ops.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let (facts, seed) = (feed.u8(), feed.u8());
    let (away, drains) = (feed.flag(), feed.flag());
    let mut world = World::new(policy(facts, seed), u64::from(seed), feed);
    for _ in 0..MOST {
        if world.choices.is_empty() {
            break;
        }
        world.step();
    }
    if away {
        world.settle_away();
    }
    world.settle();
    if drains {
        world.drain();
    }
}

fn policy(facts: u8, seed: u8) -> Policy {
    // The signer of a history flaps all the time: some do not mind, or little.
    let hold_down = [
        Duration::ZERO,
        Duration::from_secs(2),
        limits::HOLD_DOWN_MAX,
    ];
    Policy {
        hold_down: hold_down[usize::from(facts % 3)],
        gossip_floor: usize::from(facts / 3 % 5),
        personas: (facts / 15).is_multiple_of(2),
        onions: (facts / 30).is_multiple_of(2),
        channel_peers: facts / 60 % 2 == 1,
        cached_identity: facts / 120 % 2 == 1,
        personas_by_proxy: seed % 2 == 1,
    }
}
