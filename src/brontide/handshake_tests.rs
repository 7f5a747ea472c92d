//! The three acts against the published cases and against each other: what is refused, in which act, and that nothing goes on after it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr
)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::BytesMut;

use super::*;
use crate::brontide::tests::Seeded;

/// The keys of both sides, made of a seed.
struct Ends {
    alice: LocalKey,
    bob: LocalKey,
    random: Seeded,
}

fn ends(seed: u64) -> Ends {
    let mut random = Seeded(seed);
    let mut key = || LocalKey::from_bytes(&mut random.bytes32()).unwrap();
    let (alice, bob) = (key(), key());
    Ends { alice, bob, random }
}

/// Not `unwrap`: the states cannot be printed.
fn ok<T>(result: Result<T, HandshakeError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn refusal<T>(result: Result<T, HandshakeError>) -> HandshakeError {
    result.err().expect("has to be refused")
}

impl Ends {
    fn key(&mut self) -> LocalKey {
        LocalKey::from_bytes(&mut self.random.bytes32()).unwrap()
    }

    fn dial(&mut self) -> (AwaitActTwo, [u8; 50]) {
        let (local, remote) = (self.alice.node_id(), self.bob.node_id());
        ok(InitiatorStart::new(local, remote, self.key()))
    }

    fn answer(&mut self, one: &[u8]) -> Result<(AwaitActThree, [u8; 50]), HandshakeError> {
        let state = AwaitActOne::new(self.bob.node_id(), self.key()).act_one(one)?;
        let reply = self.bob.ecdh(&state.request().point);
        state.resume(reply)
    }

    fn confirm(
        &self,
        state: AwaitActTwo,
        two: &[u8],
    ) -> Result<([u8; 66], Authenticated), HandshakeError> {
        let state = state.act_two(two)?;
        let reply = self.alice.ecdh(&state.request().point);
        state.resume(reply)
    }
}

#[test]
fn two_of_us_with_any_keys_agree_and_talk() {
    for seed in 0..16 {
        eprintln!("seed {seed}");
        let mut ends = ends(seed);
        let (a, one) = ends.dial();
        let (b, two) = ok(ends.answer(&one));
        let (three, a) = ok(ends.confirm(a, &two));
        let b = ok(b.act_three(&three));
        assert_eq!((a.remote(), b.remote()), (b.local(), a.local()));
        assert_eq!((a.role(), b.role()), (Role::Initiator, Role::Responder));
        let (mut a, mut b, mut wire) = (a.into_session(), b.into_session(), BytesMut::new());
        a.seal(b"to b", &mut wire).unwrap();
        assert_eq!(b.open(&mut wire).unwrap().unwrap(), "to b");
        b.seal(b"to a", &mut wire).unwrap();
        assert_eq!(a.open(&mut wire).unwrap().unwrap(), "to a");
    }
}

#[test]
fn an_act_of_any_other_length_is_refused_by_name() {
    let expected = |act: Act, got| HandshakeError::Length {
        act,
        expected: act.size(),
        got,
    };
    for length in (0..=80).chain([65_535]) {
        let (act, mut ends) = (vec![0; length], ends(1));
        if length != 50 {
            let error = refusal(ends.answer(&act));
            assert_eq!(error, expected(Act::One, length));
            let error = refusal(ends.dial().0.act_two(&act));
            assert_eq!(error, expected(Act::Two, length));
        }
        if length != 66 {
            let (_, one) = ends.dial();
            let error = refusal(ok(ends.answer(&one)).0.act_three(&act));
            assert_eq!(error, expected(Act::Three, length));
        }
    }
}

#[test]
fn every_version_but_0_is_refused() {
    for version in 1..=255 {
        let mut ends = ends(2);
        let (a, mut one) = ends.dial();
        let (b, mut two) = ok(ends.answer(&one));
        let mut three = [0; 66];
        for act in [one.as_mut_slice(), &mut two, &mut three] {
            act[0] = version;
        }
        let errors = [
            refusal(ends.answer(&one)),
            refusal(a.act_two(&two)),
            refusal(b.act_three(&three)),
        ];
        let expected =
            [Act::One, Act::Two, Act::Three].map(|act| HandshakeError::Version { act, version });
        assert_eq!(errors, expected);
    }
}

/// The first byte is the version, the next the key, the rest the tag; in act three the key is encrypted, with a tag of its own.
#[test]
fn a_flipped_bit_anywhere_in_an_act_is_refused_in_that_act() {
    let flipped = |act: &[u8], offset: usize| {
        let mut act = act.to_vec();
        act[offset] ^= 1 << (offset % 8);
        act
    };
    let kept = |error: HandshakeError, act: Act, offset: usize| {
        assert_eq!((error.act(), error.culprit()), (act, Culprit::Peer));
        match (error, act, offset) {
                (HandshakeError::Version { .. }, _, 0)
                // A changed ephemeral key is no point, or another: then the tag fails.
                | (HandshakeError::Point { .. }, Act::One | Act::Two, 1..34)
                | (HandshakeError::Tag { .. }, Act::One | Act::Two, 1..50)
                | (HandshakeError::Ciphertext { .. }, Act::Three, 1..50)
                | (HandshakeError::Tag { .. }, Act::Three, 50..66) => {}
                _ => panic!("{error} at offset {offset}"),
            }
    };
    for offset in 0..66 {
        let mut ends = ends(3);
        let (a, one) = ends.dial();
        let (b, two) = ok(ends.answer(&one));
        if offset < 50 {
            kept(
                refusal(ends.answer(&flipped(&one, offset))),
                Act::One,
                offset,
            );
            let (a, one) = ends.dial();
            let (_, two) = ok(ends.answer(&one));
            kept(refusal(a.act_two(&flipped(&two, offset))), Act::Two, offset);
        }
        let (three, _) = ok(ends.confirm(a, &two));
        kept(
            refusal(b.act_three(&flipped(&three, offset))),
            Act::Three,
            offset,
        );
    }
}

#[test]
fn a_caller_who_does_not_know_our_key_fails_act_one() {
    let mut ends = ends(4);
    let (stranger, local, ephemeral) = (ends.key(), ends.alice.node_id(), ends.key());
    let (_, one) = ok(InitiatorStart::new(local, stranger.node_id(), ephemeral));
    assert_eq!(
        refusal(ends.answer(&one)),
        HandshakeError::Tag { act: Act::One }
    );
}

#[test]
fn a_wrong_reply_fails_the_handshake_where_it_can_first_be_noticed() {
    let mut ends = ends(5);
    let wrong = || SharedSecret::take(&mut [9; 32]);
    let (a, one) = ends.dial();
    let state = AwaitActOne::new(ends.bob.node_id(), ends.key());
    let error = refusal(ok(state.act_one(&one)).resume(wrong()));
    assert_eq!(error, HandshakeError::Tag { act: Act::One });
    // The initiator cannot notice; the responder does.
    let (b, two) = ok(ends.answer(&one));
    let (three, _) = ok(ok(a.act_two(&two)).resume(wrong()));
    let error = refusal(b.act_three(&three));
    assert_eq!(error, HandshakeError::Tag { act: Act::Three });
}

#[test]
fn the_request_is_for_the_other_side_s_ephemeral_key() {
    let mut ends = ends(6);
    let (a, one) = ends.dial();
    let state = AwaitActOne::new(ends.bob.node_id(), ends.key());
    let request = ok(state.act_one(&one)).request();
    assert_eq!(request.point.as_bytes().as_slice(), &one[1..34]);
    let (_, two) = ok(ends.answer(&one));
    let request = ok(a.act_two(&two)).request();
    assert_eq!(request.point.as_bytes().as_slice(), &two[1..34]);
}

#[test]
fn an_error_of_ours_is_called_ours() {
    let (act, what) = (Act::Two, "a test");
    let error = HandshakeError::of(act, StepError::Fault(what));
    assert_eq!(error, HandshakeError::Internal { act, what });
    assert_eq!(
        (error.culprit(), error.retry()),
        (Culprit::Us, Retry::Never)
    );
    assert!(error.to_string().contains("act two: a test"));
}

#[test]
fn an_error_s_rule_and_word_name_the_act() {
    let acts = [
        (Act::One, "One", "act1_"),
        (Act::Two, "Two", "act2_"),
        (Act::Three, "Three", "act3_"),
    ];
    let mut words = Vec::new();
    for (act, name, prefix) in acts {
        let errors = [
            HandshakeError::Length {
                act,
                expected: 50,
                got: 0,
            },
            HandshakeError::Version { act, version: 1 },
            HandshakeError::Point { act },
            HandshakeError::Tag { act },
        ];
        for error in errors {
            let steps = format!("BOLT 8 § Act {name}, Receiver Actions ");
            assert!(error.rule().starts_with(&steps), "{}", error.rule());
            assert!(error.label().starts_with(prefix), "{}", error.label());
            assert_eq!(error.retry(), Retry::Later);
            words.push(error.label());
        }
    }
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), 12, "a word of its own for each");
}
