//! A recorded session, every byte of it changed, both ways: the end that gets it refuses there and then, has taken everything before it
//! and nothing after it.
//!
//! The recording goes through the handshake, `init`, messages and a rotation of both keys. Over real sockets a sample of the same is in
//! `tests/flipped_sockets.rs`, with a link of the same node beside it: two sessions alone have nothing in common that could break.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

use bytes::BytesMut;
use pilotlight::brontide::{
    ACT_ONE_LEN, ACT_THREE_LEN, ACT_TWO_LEN, AwaitActOne, FRAME_OVERHEAD, HEADER_LEN,
    InitiatorStart, MESSAGES_PER_KEY, Session, SessionError,
};
use pilotlight::error::Culprit;
use pilotlight::node_id::LocalKey;
use pilotlight::wire::{BITCOIN_MAINNET, Init, Ping, Pong};
use std::ops::Range;

/// The keys of a link's two ends: who dials, who is dialled, and their ephemeral ones.
fn keys() -> [LocalKey; 4] {
    [0x11, 0x21, 0x12, 0x22].map(|byte| LocalKey::from_bytes(&mut [byte; 32]).unwrap())
}

/// What each end says after the handshake: `init`, a ping or a pong, then short messages until the key has been rotated, and some more.
fn messages(pong: bool) -> Vec<Vec<u8>> {
    let probe = if pong {
        Pong { ignored: 8 }.encode()
    } else {
        Ping {
            num_pong_bytes: 8,
            ignored: 3,
        }
        .encode()
    };
    let mut messages = vec![Init::gossip(vec![BITCOIN_MAINNET]).encode(), probe];
    while messages.len() < usize::try_from(MESSAGES_PER_KEY).unwrap() + 4 {
        // Of two bytes, as short as a message may be: what matters of them is their number.
        messages.push(vec![0x80, 0x01]);
    }
    messages
}

/// Both directions of a session, as the wire had them, and what was in them.
struct Recording {
    forth: Vec<u8>,
    back: Vec<u8>,
    said: Vec<Vec<u8>>,
    answered: Vec<Vec<u8>>,
}

fn record() -> Recording {
    let [us, them, our_ephemeral, their_ephemeral] = keys();
    let (alice, one) = InitiatorStart::new(us.node_id(), them.node_id(), our_ephemeral).unwrap();
    let bob = AwaitActOne::new(them.node_id(), their_ephemeral);
    let bob = bob.act_one(&one).unwrap();
    let reply = them.ecdh(&bob.request().point);
    let (bob, two) = bob.resume(reply).unwrap();
    let alice = alice.act_two(&two).unwrap();
    let reply = us.ecdh(&alice.request().point);
    let (three, alice) = alice.resume(reply).unwrap();
    let bob = bob.act_three(&three).unwrap();
    let stream = |mut session: Session, messages: &[Vec<u8>]| {
        let mut stream = BytesMut::new();
        for message in messages {
            session.seal(message, &mut stream).unwrap();
        }
        assert_eq!(
            session.rotations().0,
            1,
            "the recording goes across a rotation"
        );
        stream.to_vec()
    };
    let (said, answered) = (messages(false), messages(true));
    Recording {
        forth: [&one[..], &three, &stream(alice.into_session(), &said)].concat(),
        back: [&two[..], &stream(bob.into_session(), &answered)].concat(),
        said,
        answered,
    }
}

/// How far an end came: whether the handshake passed, what it took, and why it stopped.
struct Fate {
    taken: usize,
    refused: &'static str,
    culprit: Culprit,
}

impl Fate {
    fn at_once(refused: &'static str, culprit: Culprit) -> Self {
        Self {
            taken: 0,
            refused,
            culprit,
        }
    }
}

/// The dialled end, given these bytes.
fn dialled(forth: &[u8]) -> Fate {
    let [_, them, _, ephemeral] = keys();
    let (one, rest) = forth.split_at(ACT_ONE_LEN);
    let (three, stream) = rest.split_at(ACT_THREE_LEN);
    let bob = match AwaitActOne::new(them.node_id(), ephemeral).act_one(one) {
        Ok(bob) => bob,
        Err(refused) => return Fate::at_once(refused.label(), refused.culprit()),
    };
    let reply = them.ecdh(&bob.request().point);
    match bob.resume(reply).and_then(|(bob, _)| bob.act_three(three)) {
        Ok(bob) => reads(bob.into_session(), stream),
        Err(refused) => Fate::at_once(refused.label(), refused.culprit()),
    }
}

/// The dialling end, given these bytes.
fn dialling(back: &[u8]) -> Fate {
    let [us, them, ephemeral, _] = keys();
    let (two, stream) = back.split_at(ACT_TWO_LEN);
    let (alice, _) = InitiatorStart::new(us.node_id(), them.node_id(), ephemeral).unwrap();
    match alice.act_two(two) {
        Ok(alice) => {
            let reply = us.ecdh(&alice.request().point);
            let (_, alice) = alice.resume(reply).unwrap();
            reads(alice.into_session(), stream)
        }
        Err(refused) => Fate::at_once(refused.label(), refused.culprit()),
    }
}

fn reads(mut session: Session, stream: &[u8]) -> Fate {
    let (mut input, mut taken) = (BytesMut::from(stream), 0);
    let refused = loop {
        match session.open(&mut input) {
            Ok(Some(_)) => taken += 1,
            Ok(None) => return Fate::at_once("nothing", Culprit::Us),
            Err(refused) => break refused,
        }
    };
    // For good, and nothing of ours leaves any more.
    let (left, mut out) = (input.len(), BytesMut::new());
    assert_eq!(session.open(&mut input), Err(refused));
    assert_eq!(session.seal(b"on", &mut out), Err(refused));
    assert!(session.is_failed() && out.is_empty() && input.len() == left);
    Fate {
        taken,
        refused: refused.label(),
        culprit: refused.culprit(),
    }
}

/// What a change at an offset of one direction must lead to: how many messages are taken, and the refusals that fit.
fn expected(
    acts: &[(usize, &'static [&'static str])],
    messages: &[Vec<u8>],
    offset: usize,
) -> (usize, Vec<&'static str>) {
    let mut start = 0;
    for (length, refusals) in acts {
        if offset < start + length {
            let version = offset == start;
            let words = refusals.iter().copied();
            return (
                0,
                words
                    .filter(|word| word.contains("version") == version)
                    .collect(),
            );
        }
        start += length;
    }
    for (index, message) in messages.iter().enumerate() {
        if offset < start + message.len() + FRAME_OVERHEAD {
            let part = if offset < start + HEADER_LEN {
                SessionError::HeaderTag
            } else {
                SessionError::BodyTag
            };
            return (index, vec![part.label()]);
        }
        start += message.len() + FRAME_OVERHEAD;
    }
    panic!("{offset} is beyond the recording");
}

const TO_DIALLED: &[(usize, &[&str])] = &[
    (
        ACT_ONE_LEN,
        &["act1_bad_version", "act1_bad_pubkey", "act1_bad_tag"],
    ),
    (
        ACT_THREE_LEN,
        &["act3_bad_version", "act3_bad_ciphertext", "act3_bad_tag"],
    ),
];
const TO_DIALLING: &[(usize, &[&str])] = &[(
    ACT_TWO_LEN,
    &["act2_bad_version", "act2_bad_pubkey", "act2_bad_tag"],
)];

/// One direction of the recording, and the end that it goes to.
struct Way<'a> {
    stream: &'a [u8],
    acts: &'static [(usize, &'static [&'static str])],
    messages: &'a [Vec<u8>],
    end: fn(&[u8]) -> Fate,
}

impl Way<'_> {
    /// Changes every byte of a range, one at a time.
    fn flip(&self, range: Range<usize>) {
        let mut stream = self.stream.to_vec();
        for offset in range {
            let bit = 1 << (offset % 8);
            stream[offset] ^= bit;
            let fate = (self.end)(&stream);
            stream[offset] ^= bit;
            let (taken, refusals) = expected(self.acts, self.messages, offset);
            assert!(
                refusals.contains(&fate.refused),
                "byte {offset}: {} is not among {refusals:?}",
                fate.refused
            );
            assert_eq!(
                (fate.taken, fate.culprit),
                (taken, Culprit::Peer),
                "byte {offset}"
            );
        }
    }

    /// All of it, with every processor at work: early bytes are soon refused, so that each takes every so many.
    fn flip_all(&self) {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let length = self.stream.len();
        std::thread::scope(|scope| {
            for worker in 0..workers {
                scope.spawn(move || {
                    for start in (worker * 64..length).step_by(workers * 64) {
                        self.flip(start..length.min(start + 64));
                    }
                });
            }
        });
        println!("{length} bytes changed, {} messages", self.messages.len());
    }
}

#[test]
fn every_changed_byte_to_the_dialled_end_is_refused_there_and_then() {
    let recording = record();
    let way = Way {
        stream: &recording.forth,
        acts: TO_DIALLED,
        messages: &recording.said,
        end: dialled,
    };
    assert_eq!(
        (way.end)(way.stream).refused,
        "nothing",
        "unchanged it is taken"
    );
    way.flip_all();
}

#[test]
fn every_changed_byte_to_the_dialling_end_is_refused_there_and_then() {
    let recording = record();
    let way = Way {
        stream: &recording.back,
        acts: TO_DIALLING,
        messages: &recording.answered,
        end: dialling,
    };
    assert_eq!(
        (way.end)(way.stream).refused,
        "nothing",
        "unchanged it is taken"
    );
    way.flip_all();
}
