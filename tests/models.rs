//! The real pure machines through **every** history of so many events, with the promises as what must hold after each, and from each
//! state what must come of it.
//!
//! The search is our own, breadth first over states of the real machines ([`search`]), and not stateright's. stateright wants a model
//! that is written for it, states that are `Hash` and `Eq`, and nothing that grows; ours are the machines that ship, which hold times,
//! numbers that are given out in turn, hash tables and dice, so that two states which are as good as one are never equal. What makes
//! them one is their canonical text ([`canon`]), and with that the search is a hundred lines.
//!
//! What is left out is in each model's own text: dice are thrown once (waits have one jitter a state), and time passes in steps: to what is
//! due next, or a second. A depth is a number of events. `cargo test` goes to a small one; `.ci/run models` further.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test"
)]

#[path = "models/canon.rs"]
mod canon;
#[path = "models/gateway.rs"]
mod gateway;
#[path = "models/roster.rs"]
mod roster;
#[path = "../fuzz/src/roster_world.rs"]
mod roster_world;
#[path = "models/search.rs"]
mod search;

use gateway::Gateway;
use pilotlight::limits;
use pilotlight::supervisor::machine::Policy;
use roster::Roster;
use search::search;

/// Ways to run a node, by name.
fn policies() -> Vec<(&'static str, Policy)> {
    let bare = Policy {
        hold_down: limits::HOLD_DOWN_MAX,
        gossip_floor: 0,
        personas: false,
        ..Policy::default()
    };
    let floor = Policy {
        gossip_floor: 1,
        personas: true,
        ..bare
    };
    vec![
        ("bare", bare),
        ("floor", floor),
        (
            "personas meet channel peers",
            Policy {
                gossip_floor: 2,
                channel_peers: true,
                ..floor
            },
        ),
        (
            "cached identity",
            Policy {
                cached_identity: true,
                ..floor
            },
        ),
    ]
}

/// From the start of the node, and from when all is well.
fn rosters(policy: &str, depth: usize, states: usize) {
    let (name, policy) = policies()
        .into_iter()
        .find(|(name, _)| *name == policy)
        .unwrap();
    for (when, first) in [
        ("started", Roster::new(policy)),
        ("lit", Roster::lit(policy)),
    ] {
        let figures = search(&format!("{name}, {when}"), &first, depth);
        assert!(figures.states >= states, "{name}: {figures:?}");
    }
}

/// From an empty seat, and from one that is taken.
fn gateways(vacant: usize, held: usize, states: usize) {
    let starts = [
        ("vacant", Gateway::new(), vacant),
        ("held", Gateway::held(), held),
    ];
    for (when, first, depth) in starts {
        let figures = search(&format!("gateway, {when}"), &first, depth);
        assert!(figures.states >= states, "{figures:?}");
    }
}

#[test]
fn p5_p8_and_p9_hold_in_every_history_of_four_events() {
    rosters("bare", 4, 1500);
}

#[test]
fn p7_and_p8_hold_in_every_history_of_three_events_with_a_gossip_floor() {
    rosters("floor", 3, 300);
}

#[test]
fn p7_and_p8_hold_in_every_history_of_three_events_when_personas_meet_channel_peers() {
    rosters("personas meet channel peers", 3, 300);
}

#[test]
fn p5_to_p8_hold_in_every_history_of_three_events_under_a_cached_identity() {
    rosters("cached identity", 3, 500);
}

#[test]
fn p6_one_signer_at_a_time_in_every_history_of_seven_events_or_six_of_a_seat_that_is_taken() {
    gateways(7, 6, 900);
}

#[test]
#[ignore = "minutes: the stage `models` of .ci/run"]
fn deep_p5_to_p9_hold_in_every_history_of_many_events() {
    for (name, _) in policies() {
        rosters(name, 5, 10_000);
    }
}

#[test]
#[ignore = "minutes: the stage `models` of .ci/run"]
fn deep_p6_one_signer_at_a_time_in_every_history_of_many_events() {
    gateways(11, 9, 50_000);
}
