//! What the unit tests of this layer share, and the tests of whole sessions.
//!
//! The keys of a session are given here, so that what goes over the wire can be foretold by a second implementation; handshakes have
//! their tests in `noise_tests.rs`, `handshake_tests.rs` and `tests/brontide_vectors.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::format_collect,
    clippy::match_bool
)]

use std::{
    cell::RefCell,
    fmt::{Debug, Display},
};

use bytes::BytesMut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::Aead as _};
use hkdf::Hkdf;
use proptest::prelude::*;
use sha2::Sha256;

use super::*;
use crate::{
    error::{Culprit, Retry},
    secret::{Secret32, assert_not_impl},
};

#[path = "../../tests/vectors/bolt8.rs"]
pub(super) mod vectors;

assert_not_impl!(Session: Debug, Display, Clone);
assert_not_impl!(Authenticated: Debug, Display, Clone);
assert_not_impl!(AwaitActOne: Debug, Display, Clone);
assert_not_impl!(AwaitActTwo: Debug, Display, Clone);
assert_not_impl!(AwaitActThree: Debug, Display, Clone);
assert_not_impl!(InitiatorEcdh: Debug, Display, Clone);
assert_not_impl!(ResponderEcdh: Debug, Display, Clone);

const _: fn() = || {
    fn can_move_to_another_thread<T: Send + 'static>() {}
    can_move_to_another_thread::<Session>();
    can_move_to_another_thread::<Authenticated>();
    can_move_to_another_thread::<AwaitActTwo>();
    can_move_to_another_thread::<InitiatorEcdh>();
    can_move_to_another_thread::<ResponderEcdh>();
    can_move_to_another_thread::<AwaitActThree>();
};

thread_local! {
    static RECORD: RefCell<Option<Vec<Vec<u8>>>> = const { RefCell::new(None) };
}

/// Called with everything that passes between `snow` and our primitives.
pub(super) fn record(bytes: &[u8]) {
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.push(bytes.to_vec());
        }
    });
}

/// Runs `act` and returns what passed while it ran.
pub(super) fn recorded<T>(act: impl FnOnce() -> T) -> (T, Vec<Vec<u8>>) {
    RECORD.set(Some(Vec::new()));
    let result = act();
    (result, RECORD.take().unwrap())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(super) fn secret(hex: &str) -> Secret32 {
    Secret32::take(&mut unhex(hex).try_into().unwrap())
}

/// `SplitMix64`: seeds of tests are printed, and replay.
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    pub(super) fn bytes32(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// The two ends of one link, with the keys of the published vectors.
fn pair() -> (Session, Session) {
    let (ck, sk, rk) = (
        secret(vectors::CK),
        secret(vectors::SK),
        secret(vectors::RK),
    );
    (Session::new(&ck, &sk, &rk), Session::new(&ck, &rk, &sk))
}

/// A second implementation of one direction, from the text of BOLT 8, sharing nothing with ours but the libraries.
struct Reference {
    chaining_key: [u8; 32],
    key: [u8; 32],
    nonce: u64,
}

impl Reference {
    fn new(key: &str) -> Self {
        Self {
            chaining_key: unhex(vectors::CK).try_into().unwrap(),
            key: unhex(key).try_into().unwrap(),
            nonce: 0,
        }
    }

    fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        if self.nonce == 1000 {
            let mut both = [0; 64];
            let hkdf = Hkdf::<Sha256>::new(Some(&self.chaining_key), &self.key);
            hkdf.expand(&[], &mut both).unwrap();
            self.chaining_key = both[..32].try_into().unwrap();
            self.key = both[32..].try_into().unwrap();
            self.nonce = 0;
        }
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        let cipher = ChaCha20Poly1305::new(&self.key.into());
        cipher.encrypt(&nonce.into(), plain).unwrap()
    }

    fn frame(&mut self, message: &[u8]) -> Vec<u8> {
        let length = u16::try_from(message.len()).unwrap();
        let mut frame = self.encrypt(&length.to_be_bytes());
        frame.extend(self.encrypt(message));
        frame
    }
}

/// One direction of a link under test: what was sent and is not yet received, as messages and as bytes.
#[derive(Default)]
struct Flight {
    messages: std::collections::VecDeque<Vec<u8>>,
    wire: BytesMut,
    inbox: BytesMut,
    sent: u64,
}

impl Flight {
    fn send(&mut self, from: &mut Session, oracle: &mut Reference, message: Vec<u8>) {
        let before = self.wire.len();
        from.seal(&message, &mut self.wire).unwrap();
        assert!(
            self.wire[before..] == oracle.frame(&message),
            "message {} differs from the second implementation's",
            self.sent
        );
        self.messages.push_back(message);
        self.sent += 1;
    }

    /// Some of the bytes in flight arrive, wherever that cuts them.
    fn arrive(&mut self, at: &mut Session, bytes: usize) {
        let some = self.wire.split_to(bytes.min(self.wire.len()));
        self.inbox.extend_from_slice(&some);
        while let Some(message) = at.open(&mut self.inbox).unwrap() {
            assert_eq!(Some(message.to_vec()), self.messages.pop_front());
        }
    }
}

/// What two published stacks get wrong: both directions rotate, several times, at moments that nothing aligns.
#[test]
fn both_directions_rotate_apart_and_interleaved_at_random() {
    for seed in [1, 0xb017_0008, 0xfeed] {
        eprintln!("seed {seed}");
        let mut random = Seeded(seed);
        let (mut alice, mut bob) = pair();
        let (mut forth, mut back) = (Flight::default(), Flight::default());
        let mut oracles = (Reference::new(vectors::SK), Reference::new(vectors::RK));
        while forth.sent < 2600 || back.sent < 2600 {
            // Bursts, so that one side is rotations ahead of the other for a while.
            for _ in 0..random.below(300) {
                let message = vec![random.next() as u8; random.below(60)];
                forth.send(&mut alice, &mut oracles.0, message);
            }
            for _ in 0..random.below(300) {
                let message = vec![random.next() as u8; random.below(60)];
                back.send(&mut bob, &mut oracles.1, message);
            }
            forth.arrive(&mut bob, random.below(20_000));
            back.arrive(&mut alice, random.below(20_000));
        }
        forth.arrive(&mut bob, usize::MAX);
        back.arrive(&mut alice, usize::MAX);
        assert!(forth.messages.is_empty() && back.messages.is_empty());
        assert_eq!((alice.sent(), alice.received()), (forth.sent, back.sent));
        assert_eq!(alice.rotations(), (forth.sent / 500, back.sent / 500));
        assert_eq!((bob.rotations().1, bob.rotations().0), alice.rotations());
        assert!(alice.rotations().0 >= 5 && alice.rotations().1 >= 5);
    }
}

/// The first rotations of the two directions do not depend on which comes first.
#[test]
fn the_directions_do_not_share_a_chaining_key() {
    let (mut alice, _) = pair();
    for _ in 0..MESSAGES_PER_KEY {
        alice.seal(&[], &mut BytesMut::new()).unwrap();
    }
    let (send, receive) = alice.directions().unwrap();
    let (rotated_ck, rotated_key) = vectors::ROTATIONS[0];
    let halves = |(ck, key): (&[u8], &[u8])| (hex(ck), hex(key));
    assert_eq!(
        halves(send.chaining_key_and_key()),
        (rotated_ck.to_owned(), rotated_key.to_owned())
    );
    assert_eq!(
        halves(receive.chaining_key_and_key()),
        (vectors::CK.to_owned(), vectors::RK.to_owned())
    );
}

/// Feeds a stream in the given pieces; between them the session says what it needs, and that is true.
fn feed(session: &mut Session, stream: &[u8], pieces: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
    let (mut input, mut rest, mut messages) = (BytesMut::new(), stream, Vec::new());
    for piece in pieces.chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        input.extend_from_slice(now);
        rest = later;
        loop {
            let before = input.len();
            let missing = session.needed(before);
            let Some(message) = session.open(&mut input).unwrap() else {
                // A whole header may have been taken off although the body is missing.
                assert!(missing > 0 || input.len() == before - HEADER_LEN);
                assert!(session.needed(input.len()) > 0);
                break;
            };
            assert!(missing == 0 && input.len() < before);
            messages.push(message.to_vec());
        }
    }
    assert!(input.is_empty());
    messages
}

fn stream_of(session: &mut Session, messages: &[Vec<u8>]) -> BytesMut {
    let mut stream = BytesMut::new();
    for message in messages {
        session.seal(message, &mut stream).unwrap();
    }
    stream
}

#[test]
fn a_stream_byte_by_byte_and_all_at_once_is_the_same_messages() {
    let messages: Vec<Vec<u8>> = [0, 5, 0, 430, 1, 18, 65_535, 0]
        .iter()
        .map(|length| vec![0xa5; *length])
        .collect();
    let (mut alice, mut bob) = pair();
    let stream = stream_of(&mut alice, &messages);
    let all = messages
        .iter()
        .map(|message| message.len() + FRAME_OVERHEAD);
    assert_eq!(stream.len(), all.sum::<usize>());
    assert!(feed(&mut bob, &stream, std::iter::empty()) == messages);
    let (_, mut bob) = pair();
    assert!(feed(&mut bob, &stream, std::iter::repeat_n(1, stream.len())) == messages);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_stream_split_anyhow_is_the_same_messages(
        lengths in proptest::collection::vec(0_usize..600, 0..12),
        pieces in proptest::collection::vec(0_usize..200, 0..60),
    ) {
        let messages: Vec<Vec<u8>> = lengths.iter().map(|length| vec![*length as u8; *length]).collect();
        let (mut alice, mut bob) = pair();
        let stream = stream_of(&mut alice, &messages);
        prop_assert_eq!(feed(&mut bob, &stream, pieces.into_iter()), messages);
    }

    /// Whatever a stranger sends: an error or patience, no panic, and never a message.
    #[test]
    fn noise_on_the_wire_is_never_a_message(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (_, mut bob) = pair();
        let mut input = BytesMut::from(noise.as_slice());
        match bob.open(&mut input) {
            Ok(None) => prop_assert!(noise.len() < HEADER_LEN),
            Ok(Some(_)) => prop_assert!(false, "noise was taken for a message"),
            Err(error) => prop_assert_eq!(error, SessionError::HeaderTag),
        }
    }
}

#[test]
fn the_longest_message_makes_the_longest_frame_and_one_byte_more_is_refused_unharmed() {
    let (mut alice, mut bob) = pair();
    let mut wire = BytesMut::new();
    alice.seal(&vec![7; MAX_MESSAGE_LEN], &mut wire).unwrap();
    assert_eq!((wire.len(), MAX_FRAME_LEN), (65_569, 65_569));
    let whole = wire.len();
    let refused = SessionError::TooLong { length: 65_536 };
    assert_eq!(alice.seal(&vec![7; 65_536], &mut wire), Err(refused));
    assert_eq!(refused.culprit(), Culprit::Us);
    assert_eq!((wire.len(), alice.sent()), (whole, 1));
    alice.seal(b"still here", &mut wire).unwrap();
    assert_eq!(bob.open(&mut wire).unwrap().unwrap().len(), 65_535);
    assert_eq!(bob.open(&mut wire).unwrap().unwrap(), "still here");
}

#[test]
fn a_message_is_handed_out_where_it_arrived() {
    let (mut alice, mut bob) = pair();
    let mut wire = stream_of(&mut alice, &[vec![1; 1000], vec![2; 1000]]);
    let arrived = wire.as_ptr();
    let first = bob.open(&mut wire).unwrap().unwrap();
    let second = bob.open(&mut wire).unwrap().unwrap();
    assert_eq!(first.as_ptr(), arrived.wrapping_add(HEADER_LEN));
    let frame = 1000 + FRAME_OVERHEAD;
    assert_eq!(second.as_ptr(), arrived.wrapping_add(frame + HEADER_LEN));
}

#[test]
fn what_is_appended_leaves_what_was_there_alone() {
    let (mut alice, mut bob) = pair();
    let mut wire = BytesMut::from(&b"before"[..]);
    alice.seal(b"message", &mut wire).unwrap();
    assert_eq!(wire.split_to(6), "before");
    assert_eq!(bob.open(&mut wire).unwrap().unwrap(), "message");
}

#[test]
fn a_frame_takes_no_more_memory_than_its_bytes() {
    let mut wire = BytesMut::new();
    pair().0.seal(&[9; 1000], &mut wire).unwrap();
    assert_eq!(wire.len(), 1000 + FRAME_OVERHEAD);
    assert!(wire.capacity() < 2 * wire.len(), "{}", wire.capacity());
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_latched() {
    let messages = [vec![], b"hello".to_vec(), vec![9; 40]];
    let recorded = stream_of(&mut pair().0, &messages);
    let mut seen = (0, 0);
    for offset in 0..recorded.len() {
        for bit in 0..8 {
            let (_, mut bob) = pair();
            let mut input = recorded.clone();
            input[offset] ^= 1 << bit;
            let (mut received, mut start) = (0, 0);
            let error = loop {
                match bob.open(&mut input) {
                    Ok(message) => {
                        let message = message.expect("the stream is whole");
                        assert_eq!(message, messages[received]);
                        start += message.len() + FRAME_OVERHEAD;
                        received += 1;
                    }
                    Err(error) => break error,
                }
            };
            // Every message before the flipped bit arrived, and the error names the part that it hit.
            assert!(start <= offset && offset < start + messages[received].len() + FRAME_OVERHEAD);
            let in_header = offset - start < HEADER_LEN;
            let expected = match in_header {
                true => SessionError::HeaderTag,
                false => SessionError::BodyTag,
            };
            assert_eq!((error, error.culprit()), (expected, Culprit::Peer));
            is_over(&mut bob, expected);
            assert_eq!(bob.received(), u64::try_from(received).unwrap());
            seen = (
                seen.0 + usize::from(in_header),
                seen.1 + usize::from(!in_header),
            );
        }
    }
    assert_eq!(seen, (3 * HEADER_LEN * 8, (3 * 16 + 45) * 8));
}

/// Every call answers the same, nothing is written or taken, no key is left.
fn is_over(session: &mut Session, why: SessionError) {
    let (mut good, mut out) = (stream_of(&mut pair().0, &[vec![1]]), BytesMut::new());
    let before = good.clone();
    for _ in 0..2 {
        assert_eq!(session.open(&mut good), Err(why));
        assert_eq!(session.open(&mut BytesMut::new()), Err(why));
        assert_eq!(session.seal(b"message", &mut out), Err(why));
        let too_long = session.seal(&vec![0; 70_000], &mut out);
        assert_eq!(too_long, Err(why));
    }
    assert_eq!((good, out.len()), (before, 0));
    assert_eq!(session.needed(0), 0);
    assert!(session.is_failed());
    assert!(session.directions().is_none());
}

#[test]
fn a_session_at_rest_holds_no_key_ready() {
    let ready = |session: &Session| {
        let (send, receive) = session.directions().unwrap();
        (send.is_ready(), receive.is_ready())
    };
    let (mut alice, mut bob) = pair();
    let mut wire = BytesMut::new();
    alice.seal(b"message", &mut wire).unwrap();
    bob.open(&mut wire).unwrap().unwrap();
    assert_eq!((ready(&alice), ready(&bob)), ((true, false), (false, true)));
    alice.rest();
    bob.rest();
    assert_eq!(
        (ready(&alice), ready(&bob)),
        ((false, false), (false, false))
    );
}

#[test]
fn every_failure_of_a_session_names_its_rule_and_has_a_word_of_its_own() {
    let all = [
        SessionError::TooLong { length: 70_000 },
        SessionError::HeaderTag,
        SessionError::BodyTag,
        SessionError::Cipher,
        SessionError::Wiped,
    ];
    let words = [
        "too_long",
        "bad_header_tag",
        "bad_body_tag",
        "cipher",
        "wiped",
    ];
    assert_eq!(all.map(|error| error.label()), words);
    for error in all {
        let rule = error.rule();
        assert!(rule.starts_with("BOLT 8 § ") || rule.starts_with("P3: "));
        assert_eq!(error.retry(), Retry::Never);
    }
}

#[test]
fn a_wiped_session_refuses_every_call() {
    let (mut alice, mut bob) = pair();
    let mut wire = BytesMut::new();
    alice.seal(b"one", &mut wire).unwrap();
    assert!(!alice.is_failed());
    alice.wipe();
    is_over(&mut alice, SessionError::Wiped);
    assert_eq!(
        (alice.sent(), SessionError::Wiped.culprit()),
        (1, Culprit::Us)
    );
    // In the middle of a frame too, and after a failure.
    wire.truncate(HEADER_LEN);
    assert_eq!(bob.open(&mut wire), Ok(None));
    assert_eq!(bob.needed(0), 3 + 16);
    bob.wipe();
    is_over(&mut bob, SessionError::Wiped);
    let (_, mut failed) = pair();
    failed.open(&mut BytesMut::zeroed(HEADER_LEN)).unwrap_err();
    is_over(&mut failed, SessionError::HeaderTag);
    failed.wipe();
    is_over(&mut failed, SessionError::Wiped);
}

/// A frame repeated, lost or out of order shows at once: its nonce is another.
#[test]
fn a_repeated_lost_or_reordered_frame_is_refused() {
    let frame = MAX_FRAME_LEN - MAX_MESSAGE_LEN + 1;
    let stream = stream_of(&mut pair().0, &[vec![1], vec![2], vec![3]]);
    let frames: Vec<&[u8]> = stream.chunks(frame).collect();
    for order in [[0, 0, 1], [0, 2, 1], [1, 0, 2]] {
        let (_, mut bob) = pair();
        let mut input = BytesMut::from(order.map(|i| frames[i]).concat().as_slice());
        let error = loop {
            if let Err(error) = bob.open(&mut input) {
                break error;
            }
        };
        assert_eq!(error, SessionError::HeaderTag);
    }
}

#[test]
fn what_one_end_sent_is_not_accepted_when_it_is_reflected() {
    let (mut alice, _) = pair();
    let mut wire = stream_of(&mut alice, &[vec![1; 20]]);
    assert_eq!(alice.open(&mut wire), Err(SessionError::HeaderTag));
}
