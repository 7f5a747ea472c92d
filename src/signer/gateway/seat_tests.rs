//! The seat: who keeps it, who gets it, and that no order of events seats two.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: StreamId = StreamId(1);
const B: StreamId = StreamId(2);
const C: StreamId = StreamId(3);
const MACAROON: MacaroonId = [1; 32];
const OTHER: MacaroonId = [2; 32];

fn candidate(source: [u8; 4]) -> Candidate {
    Candidate {
        macaroon: MACAROON,
        source: source.into(),
        claim: None,
    }
}

fn at(seconds: u64) -> Moment {
    Moment::from_start(Duration::from_secs(seconds))
}

#[test]
fn a_healthy_incumbent_keeps_its_place() {
    let mut seat = Seat::new();
    assert_eq!(seat.contend(at(0), A, MACAROON), Verdict::Attach(A));
    assert_eq!(seat.contend(at(1), B, MACAROON), Verdict::Challenge(A));
    assert_eq!(
        seat.contend(at(1), C, OTHER),
        Verdict::Refuse(C, Refusal::Contested)
    );
    assert_eq!(seat.alive(A), Some(Verdict::Refuse(B, Refusal::Conflict)));
    assert_eq!(seat.alive(A), None);
    assert_eq!(seat.holder(), Some(A));
}

#[test]
fn a_dead_incumbent_loses_the_place_to_the_newcomer() {
    let mut seat = Seat::new();
    seat.contend(at(0), A, MACAROON);
    seat.contend(at(1), B, MACAROON);
    assert_eq!(seat.dead(at(3), A), Some(B));
    assert_eq!(
        seat.left(A),
        None,
        "its late end does not touch the successor"
    );
    assert_eq!(seat.holder(), Some(B));
}

#[test]
fn one_take_over_a_minute_and_macaroon() {
    let mut seat = Seat::new();
    seat.contend(at(0), A, MACAROON);
    seat.contend(at(1), B, MACAROON);
    seat.dead(at(3), A);
    assert_eq!(
        seat.contend(at(62), A, MACAROON),
        Verdict::Refuse(A, Refusal::TooSoon)
    );
    assert_eq!(seat.contend(at(62), A, OTHER), Verdict::Challenge(B));
    assert_eq!(seat.left(A), None, "the newcomer gives up");
    assert_eq!(seat.contend(at(63), A, MACAROON), Verdict::Challenge(B));
}

#[test]
fn an_incumbent_that_ends_while_it_is_contested_leaves_its_place_at_once() {
    let mut seat = Seat::new();
    seat.contend(at(0), A, MACAROON);
    seat.contend(at(1), B, MACAROON);
    assert_eq!(seat.left(A), Some(Verdict::Attach(B)));
    assert_eq!(seat.left(B), None);
    assert_eq!(seat.holder(), None);
    assert_eq!(
        seat.contend(at(2), C, MACAROON),
        Verdict::Attach(C),
        "that was no take-over"
    );
}

#[test]
fn a_failed_proof_is_held_off_for_longer_each_time() {
    let mut holds = HoldOffs::new();
    let candidate = candidate([127, 0, 0, 1]);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(holds.remaining(at(now), &candidate), None);
        let wait = holds.failed(at(now), candidate).as_secs();
        assert_eq!(
            holds.remaining(at(now), &candidate),
            Some(Duration::from_secs(wait))
        );
        waits.push(wait);
        now += wait;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let elsewhere = Candidate {
        source: [127, 0, 0, 2].into(),
        ..candidate
    };
    assert_eq!(holds.remaining(at(now), &elsewhere), None);
    for other in [
        Candidate {
            macaroon: OTHER,
            ..candidate
        },
        Candidate {
            claim: Some(
                crate::node_id::LocalKey::from_bytes(&mut [1; 32])
                    .unwrap()
                    .node_id(),
            ),
            ..candidate
        },
    ] {
        assert_eq!(
            holds.remaining(at(now), &other),
            None,
            "behind the same address"
        );
    }
    holds.passed(&candidate);
    assert_eq!(holds.failed(at(now), candidate), limits::HOLD_OFF_FIRST);
    assert_eq!(
        holds.failed(at(now + limits::HOLD_OFF_FORGET.as_secs()), elsewhere),
        limits::HOLD_OFF_FIRST
    );
    assert_eq!(holds.len(), 1, "the old failure is forgotten");
}

#[test]
fn p9_failures_are_bounded_in_number() {
    let mut holds = HoldOffs::new();
    for number in 0..5000_u32 {
        holds.failed(at(1), candidate(number.to_be_bytes()));
        assert!(holds.len() <= limits::HOLD_OFFS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, at most one stream is attached, and only one that was told to.
    #[test]
    fn no_order_of_events_seats_two(steps in prop::collection::vec((0_u8..4, 0_u64..5, 0_u64..30), 0..200)) {
        let (mut seat, mut seated, mut now) = (Seat::new(), BTreeSet::new(), 0);
        for (what, stream, gap) in steps {
            now += gap;
            let stream = StreamId(stream);
            let verdicts: Vec<Verdict> = match what {
                0 => vec![seat.contend(at(now), stream, MACAROON)],
                1 => seat.alive(stream).into_iter().collect(),
                2 => {
                    let newcomer = seat.dead(at(now), stream);
                    if newcomer.is_some() {
                        prop_assert!(seated.remove(&stream));
                    }
                    newcomer.map(Verdict::Attach).into_iter().collect()
                }
                _ => {
                    seated.remove(&stream);
                    seat.left(stream).into_iter().collect()
                }
            };
            for verdict in verdicts {
                match verdict {
                    Verdict::Attach(id) => {
                        seated.insert(id);
                    }
                    Verdict::Challenge(id) => prop_assert!(seated.contains(&id)),
                    Verdict::Refuse(id, _) => prop_assert!(!seated.contains(&id)),
                }
            }
            prop_assert!(seated.len() <= 1);
            prop_assert_eq!(seat.holder(), seated.first().copied());
        }
    }
}
